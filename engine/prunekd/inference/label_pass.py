"""The pass that makes soft labels: a teacher over some views of each sample, in blocks that survive a kill."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunekd.common.distributed import World
from prunekd.common.lock import locked
from prunekd.common.machine import describe_machine
from prunekd.distill import CachedTeacher, OnlineTeacher
from prunekd.distill.labels_file import FORMAT, VERSION, Block, LabelsWriter
from prunekd.input import EpochPlan, Reader, open_reader
from prunekd.input.views import ViewSettings
from prunekd.pruning.parquet import made_for, some
from prunekd.pruning.subset import Subset
from prunekd.store import Store
from prunekd.training.settings import Recipe

BLOCK_RECORDS = 4096  # written, flushed and noted together; what a kill loses at most, per process
FULL_CLASSES = 100  # up to so many classes all logits are kept by default: a record then takes at most 200 bytes
TOPK = 20
# Largest root-mean-square difference of a record's stored logits to recomputed ones, in stds of its logits. Rounding to
# float16 gives 1e-3, another batch size with a 16-bit teacher some hundredths; a view of another seed some tenths.
TOLERANCE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCheck:
    """What recomputing some soft labels found.

    worst and median: root-mean-square difference of a record's logits to the recomputed ones, in stds of its logits.
    """

    records: int
    worst: float
    median: float

    def __str__(self) -> str:
        return (
            f"{self.records} records computed anew: they differ by {self.worst:.1e} std of a logit at most, "
            f"{self.median:.1e} in the median (limit {TOLERANCE})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSpec:
    """Which soft labels: the recipe's training views 0 to `views` - 1 under its seed, of all samples or a subset.

    topk None keeps all logits; the temperature of the stored logsumexp is recipe.distill.temperature.
    """

    store: Store
    teacher: OnlineTeacher
    recipe: Recipe
    views: int
    topk: int | None = None
    subset: Subset | None = None

    def __post_init__(self) -> None:
        self.teacher.check_fits(self.store.classes)
        if self.subset is not None:
            self.subset.check(self.store, "train")
        if self.views < 1:
            raise ValueError(f"views is {self.views}; it must be 1 or more (8 by default: one view alone overfits)")

    @property
    def ids(self) -> np.ndarray:
        """int64 (n,), ascending: the samples that get labels."""
        return np.sort(self.store.split("train").ids if self.subset is None else self.subset.ids)

    def plan(self) -> dict[str, Any]:
        """What labels.json says of them."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **made_for(self.store, "train"),
            "teacher": self.teacher.describe(),
            "view": self.recipe.train_view.to_dict(),
            "seed": self.recipe.seed,
            "views": self.views,
            "samples": len(self.ids),
            "subset": None if self.subset is None else dict(self.subset.info),
            "classes": len(self.store.classes),
            "topk": self.topk,
            "temperature": self.recipe.distill.temperature,
            "normalisation": {"mean": list(self.recipe.mean), "std": list(self.recipe.std)},
        }


def choose_topk(asked: int | str | None, num_classes: int) -> tuple[int | None, str]:
    """How many logits to keep (None: all), and why, from `full`, a number, or None for a default by `num_classes`.

    Raises:
        ValueError: not a number from 1 to num_classes.
    """
    if asked is None and num_classes <= FULL_CLASSES:
        return None, f"all {num_classes} logits: at most {FULL_CLASSES} classes"
    if asked is None:
        return TOPK, f"the top {TOPK} of {num_classes} logits: more than {FULL_CLASSES} classes (--topk changes it)"
    if asked == "full":
        return None, f"all {num_classes} logits"
    if not str(asked).isdigit() or not 1 <= int(asked) <= num_classes:
        raise ValueError(f"topk is {asked!r}; it must be full or a number from 1 to {num_classes}, the classes")
    return int(asked), f"the top {asked} of {num_classes} logits"


def make_labels(
    spec: LabelSpec,
    world: World,
    out: Path,
    *,
    batch_size: int = 256,
    reader: str = "native",
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write soft labels to `out`, or go on where a killed attempt stopped, and return what labels.json holds.

    Every process of `world` takes its share of the blocks; `out` must be on a file system they share.

    Args:
        progress: called with the records done and in all of this process's share of this attempt.

    Raises:
        ValueError: the labels exist; an unfinished attempt had other settings; an image that cannot be decoded; a
            logit that is not finite.
        RuntimeError: another process is writing these labels.
    """
    ids = spec.ids
    writer = LabelsWriter(out, spec.plan(), world.rank)
    with locked(writer.folder, "run of `prunekd labels`") if world.is_main else nullcontext():
        if world.is_main:
            writer.begin(ids)
        world.barrier()
        done = writer.done()
        world.barrier()  # nobody writes before all have read what was done
        size = -(-BLOCK_RECORDS // batch_size) * batch_size
        blocks = [(v, a, min(a + size, len(ids))) for v in range(spec.views) for a in range(0, len(ids), size)]
        mine = [block for block in blocks if block not in done][world.rank :: world.size]
        total, records, started = sum(stop - start for _, start, stop in mine), 0, time.perf_counter()
        pin = world.device.type == "cuda"
        with writer, open_reader(reader, spec.store, "train", workers=workers, pin=pin) as source:
            if mine:
                first = _epoch(spec, ids[mine[0][1] : mine[0][2]][:batch_size], mine[0][0], batch_size)
                (images,) = [batch.images.to(world.device, copy=True) for batch in source.epoch(first)]
                # the forwards of the whole job, so that an attempt that goes on chooses as the one before
                forwards = len(blocks) * size // (batch_size * world.size)
                spec.teacher.prepare(images, forwards)
            for block, arrays in _labelled(spec, source, ids, mine, batch_size, world.device):
                writer.write(block, arrays)
                records += block[2] - block[1]
                progress(records, total)
        facts = {"seconds": time.perf_counter() - started, "resumed": bool(done), "machine": describe_machine()}
        world.barrier()
        return writer.publish(facts) if world.is_main else writer.plan | facts


def _labelled(
    spec: LabelSpec, source: Reader, ids: np.ndarray, blocks: Sequence[Block], batch_size: int, device: torch.device
) -> Iterator[tuple[Block, dict[str, np.ndarray]]]:
    """The blocks with their records; results wait on the device until a block is full."""
    for view in sorted({block[0] for block in blocks}):
        of_view = [block for block in blocks if block[0] == view]
        wanted = np.concatenate([ids[start:stop] for _, start, stop in of_view])
        batches = source.epoch(_epoch(spec, wanted, view, batch_size))
        for block in of_view:
            waiting = []
            for _ in range(-(-(block[2] - block[1]) // batch_size)):
                logits = spec.teacher(next(batches).images.to(device, non_blocking=True))
                waiting.append(records_of(logits.float(), spec.topk, spec.recipe.distill.temperature))
            arrays = {name: torch.cat([part[name] for part in waiting]).cpu().numpy() for name in waiting[0]}
            broken = ids[block[1] : block[2]][~np.isfinite(arrays["logits"]).all(axis=1)]
            if len(broken):
                raise ValueError(
                    f"the teacher's logits are not finite in float16 for samples {some(broken)}; check its weights, "
                    "or run it in float32"
                )
            yield block, arrays


def _epoch(spec: LabelSpec, ids: np.ndarray, view: int, batch_size: int) -> EpochPlan:
    return EpochPlan(
        split=spec.store.split("train"),
        ids=ids,
        batch_size=batch_size,
        view=spec.recipe.train_view,
        seed=spec.recipe.seed,
        view_index=view,
    )


def records_of(logits: Tensor, topk: int | None, temperature: float) -> dict[str, Tensor]:
    """What is kept of logits float32 (B, C), by name; see labels_file."""
    if topk is None:
        return {"logits": logits.half()}
    values, classes = logits.topk(topk, dim=1)
    return {
        "logits": values.half(),
        "topk_ids": classes,
        "std": logits.std(dim=1),
        "logsumexp": torch.logsumexp(logits / temperature, dim=1),
    }


def verify_labels(
    path: Path,
    store: Store,
    teacher: OnlineTeacher,
    *,
    records: int = 256,
    seed: int = 0,
    batch_size: int = 256,
    workers: int | None = None,
) -> LabelCheck:
    """Compute some of the records anew and compare.

    Args:
        records: how many, drawn from all samples and up to eight views with `seed`.

    Raises:
        ValueError: labels that cannot be opened for this store, or made by another teacher.
        RuntimeError: a view whose digest differs, or a record that differs by more than TOLERANCE; the message names
            the worst.
    """
    cached = CachedTeacher.open(path, store, ids=np.empty(0, np.int64), teacher_digest=teacher.digest)
    settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in cached.info["view"].items()}
    rng = np.random.default_rng(seed)
    views = rng.choice(cached.views, size=min(cached.views, 8), replace=False)
    found: list[tuple[float, int, int]] = []  # difference, view, sample id
    with open_reader("native", store, "train", workers=workers) as source:
        for view in np.sort(views).tolist():
            try:
                cached.check(view)
            except ValueError as error:
                raise RuntimeError(str(error)) from None  # what was to be found out
            count = min(-(-records // len(views)), len(cached.ids))
            plan = EpochPlan(
                split=store.split("train"),
                ids=np.sort(rng.choice(cached.ids, size=count, replace=False)),
                batch_size=batch_size,
                view=ViewSettings(**settings),
                seed=cached.seed,
                view_index=view,
            )
            for batch in source.epoch(plan):
                logits = teacher(batch.images.to(teacher.settings.device)).float().cpu()
                differences = _differences(cached, batch.ids, view, logits)
                found += zip(differences.tolist(), [view] * len(batch.ids), batch.ids.tolist(), strict=True)
    worst, view, sample = max(found)
    if worst > TOLERANCE:
        wrong = sum(difference > TOLERANCE for difference, _, _ in found)
        raise RuntimeError(
            f"{wrong} of {len(found)} soft labels in {path} are not what {teacher.card.model} says: view {view} of "
            f"sample {sample} differs by {worst:.2f} std (limit {TOLERANCE}); make them again"
        )
    return LabelCheck(records=len(found), worst=worst, median=float(np.median([d for d, _, _ in found])))


def _differences(cached: CachedTeacher, ids: Tensor, view: int, logits: Tensor) -> Tensor:
    stored = cached.lookup(ids, view)
    same = logits if stored.ids is None else logits.gather(1, stored.ids.long())
    return (stored.logits.float() - same).square().mean(1).sqrt() / logits.std(1)
