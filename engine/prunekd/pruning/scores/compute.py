"""One pass of a teacher over the samples, every score from the same logits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from prunekd.common.registry import unknown
from prunekd.pruning.parquet import some
from prunekd.pruning.scores.feature_scores import FEATURE_SCORES
from prunekd.pruning.scores.features import FeaturePart, join, read_features
from prunekd.pruning.scores.logit_scores import SCORES
from prunekd.pruning.scores.score import FeatureScore, Outputs, Score
from prunekd.pruning.scores.table import STATISTICS, Scores

# Batches whose results wait on the device before one copy to the host: the only synchronisation of the pass.
FLUSH_EVERY = 64


class Batch(Protocol):
    """What a score pass needs of a batch: images uint8 (B, 3, H, W), labels and ids int64 (B,)."""

    @property
    def images(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def ids(self) -> Tensor: ...


Forward = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""uint8 images (B, 3, H, W) -> logits (B, C) and features (B, F) or None; normalises, runs in eval mode."""
Gather = Callable[[np.ndarray], list[np.ndarray]]
"""One process's array (k, ...) -> those of all processes, in order of rank (a collective call)."""


def alone(values: np.ndarray) -> list[np.ndarray]:
    """The `Gather` of a process on its own."""
    return [values]


def compute_scores(
    batches: Iterable[Batch],
    forward: Forward,
    names: Sequence[str],
    num_classes: int,
    *,
    features: str | Path | None = None,
    rank: int = 0,
    gather: Gather = alone,
    seed: int = 0,
) -> Scores:
    """Run the teacher over `batches` once and compute every named score.

    Args:
        batches: each sample once over all processes, in any order.
        forward: the teacher; with features where a score needs them.
        names: keys of SCORES and FEATURE_SCORES.
        num_classes: C of the store.
        features: where to write the features, float16 (n, F) in ascending order of id; FEATURE_SCORES need it.
        rank, gather: this process among those that share the samples.
        seed: of scores that draw.

    Returns:
        Scores in ascending order of id, float32, the same on every process, with `teacher_std` and the classes' means
        of it, whatever `names`. The caller fills in the provenance.

    Raises:
        ValueError: an unknown name; a logit that is not finite; a label or a number of logits that does not fit
            `num_classes`; a sample met twice; no sample at all; features asked for that the teacher does not offer.
    """
    if num_classes < 2:
        raise ValueError(f"scores need at least 2 classes, the store has {num_classes}")
    chosen, on_features = choose(names)
    features = Path(features) if features else None
    if on_features and not features:
        raise ValueError(
            f"the score {on_features[0].name} looks at all samples' features; name a file for them: features=F.npy"
        )
    asking = [score.name for score in chosen if score.needs_features] + (["features"] if features else [])
    part = FeaturePart(features, rank) if features else None
    collector = _Collector()
    with torch.no_grad():
        for batch in batches:
            outputs, wrong = _outputs(forward(batch.images), batch, num_classes)
            if asking and outputs.features is None:
                raise ValueError(f"the teacher gives no features, and {asking[0]} asks for them; use another teacher")
            columns = {score.name: score.compute(outputs) for score in chosen}
            columns["teacher_std"] = outputs.logits.std(dim=1, correction=1)
            collector.add(batch, columns, wrong)
            if part and outputs.features is not None:
                part.add(outputs.features.cpu().numpy())
    if part:
        part.close()
    ids, labels, values = collector.finish(gather)
    if features:
        mine = gather(collector.visited)
        if rank == 0:
            join(features, mine)
        gather(np.zeros(0))  # the others wait for the file
        stored = read_features(features, len(ids))
        values |= {score.name: score.compute(stored, labels, num_classes, seed) for score in on_features}
    computed: list[Score | FeatureScore] = [*chosen, *on_features]
    return Scores(
        ids=ids,
        labels=labels,
        columns=values,
        definitions={score.name: score.definition for score in computed} | STATISTICS,
        hard_ends={score.name: score.hard_end for score in computed},
        class_std=class_means(values["teacher_std"], labels, num_classes),
    )


def class_means(values: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Mean of `values` (n,) by class: float64 (num_classes,), NaN for a class without samples."""
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=values, minlength=num_classes)
    return np.divide(sums, counts, out=np.full(num_classes, np.nan), where=counts > 0)


def choose(names: Sequence[str]) -> tuple[tuple[Score, ...], tuple[FeatureScore, ...]]:
    """The scores of these names, those of single batches and those of all features; ValueError for an unknown name."""
    for name in names:
        if name not in SCORES and name not in FEATURE_SCORES:
            raise unknown("score", name, {**SCORES, **FEATURE_SCORES})
    unique = list(dict.fromkeys(names))
    return (
        tuple(SCORES[name] for name in unique if name in SCORES),
        tuple(FEATURE_SCORES[name] for name in unique if name in FEATURE_SCORES),
    )


def _outputs(given: tuple[Tensor, Tensor | None], batch: Batch, num_classes: int) -> tuple[Outputs, Tensor]:
    """The batch's outputs, made finite and in range, and what was wrong: bool (2, B), broken logits and bad labels.

    To ask here whether anything was wrong would wait for the device, so the answer travels with the results.
    """
    logits, features = given
    count = len(batch.ids)
    if logits.ndim != 2 or logits.shape[0] != count:
        raise ValueError(f"the teacher gave logits of shape {tuple(logits.shape)} for a batch of {count}")
    if logits.shape[1] != num_classes:
        raise ValueError(
            f"the teacher knows {logits.shape[1]} classes, the store has {num_classes}; "
            "use a teacher trained on this store's classes"
        )
    labels = batch.labels.to(logits.device, non_blocking=True)
    logits = logits.detach().float()
    wrong = torch.stack([~torch.isfinite(logits).all(dim=1), (labels < 0) | (labels >= num_classes)])
    clean, known = torch.nan_to_num(logits), labels.clamp(0, num_classes - 1)
    return Outputs(logits=clean, labels=known, features=None if features is None else features.float()), wrong


class _Collector:
    """Gathers per-sample results where they were computed and moves them to the host now and then."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._pending: list[tuple[Tensor, Tensor]] = []  # float32 (columns, B) and wrong (2, B), on the device
        self._keys: list[tuple[Tensor, Tensor]] = []  # ids and labels (B,), where the reader put them
        self._ids: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._values: list[np.ndarray] = []

    def add(self, batch: Batch, columns: Mapping[str, Tensor], wrong: Tensor) -> None:
        self._names = tuple(columns)
        self._pending.append((torch.stack(list(columns.values())), wrong))
        # Whoever makes the batches may use their memory again.
        self._keys.append((batch.ids.clone(), batch.labels.clone()))
        if len(self._pending) >= FLUSH_EVERY:
            self._flush()

    @property
    def visited(self) -> np.ndarray:
        """The ids met by this process, in that order."""
        return np.concatenate(self._ids)

    def finish(self, gather: Gather) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Of all processes: ids ascending, labels, and the columns by name."""
        self._flush()
        if not self._ids:
            raise ValueError("there is no sample to score")
        ids = np.concatenate(gather(self.visited))
        order = np.argsort(ids, kind="stable")
        ids = ids[order]
        repeated = ids[1:][ids[1:] == ids[:-1]]
        if len(repeated):
            raise ValueError(f"samples scored twice: ids {some(repeated)}")
        rows = np.ascontiguousarray(np.concatenate(self._values, axis=1).T)
        values = np.concatenate(gather(rows))[order].T
        labels = np.concatenate(gather(np.concatenate(self._labels)))[order]
        return ids, labels, dict(zip(self._names, np.ascontiguousarray(values), strict=True))

    def _flush(self) -> None:
        if not self._pending:
            return
        ids = torch.cat([ids for ids, _ in self._keys]).cpu().numpy()
        labels = torch.cat([labels for _, labels in self._keys]).cpu().numpy()
        broken, stray = torch.cat([wrong for _, wrong in self._pending], dim=1).cpu().numpy()
        if broken.any():
            raise ValueError(
                f"the teacher is broken: its logits are not finite for {int(broken.sum())} samples, "
                f"ids {some(ids[broken])}; check its weights, or run it in float32"
            )
        if stray.any():
            raise ValueError(f"labels outside the store's classes for ids {some(ids[stray])}")
        self._ids.append(ids)
        self._labels.append(labels)
        self._values.append(torch.cat([values for values, _ in self._pending], dim=1).cpu().numpy())
        self._pending.clear()
        self._keys.clear()
