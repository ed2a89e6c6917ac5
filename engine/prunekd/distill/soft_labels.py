"""Soft labels: what a cached teacher says of a batch.

A cached label belongs to one view of one sample: the one that (view settings, seed, view index, sample id) determine.
So that training meets the same views, an epoch must be planned with the cache's seed and view index epoch mod views:

    plan = cached.replay(train_plan(...), epoch)
    targets = cached.lookup(batch.ids, plan.view_index)

Only the views come from the cache's seed: the order of the samples is the run's own, so runs of several seeds share a
cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunekd.distill.labels_file import SAMPLE_IDS, check_view, first_difference, open_arrays, read_info
from prunekd.input.plan import EpochPlan
from prunekd.input.views import ViewSettings
from prunekd.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLabels:
    """A teacher's logits for a batch, all of them or the top K.

    Attributes:
        logits: float16 (B, C) of all classes if `ids` is None, otherwise (B, K).
        ids: int16 or int32 (B, K), the classes of the K largest logits, the largest first; None for all classes.
        std: float32 (B,), unbiased standard deviation of all C logits; None without `ids`.
        logsumexp: float32 (B,), logsumexp(z / temperature) over all C logits; None without `ids`.
        temperature: that of `logsumexp`.
    """

    logits: Tensor
    ids: Tensor | None = None
    std: Tensor | None = None
    logsumexp: Tensor | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.ids is not None and (self.std is None or self.logsumexp is None):
            raise ValueError("soft labels of the top K classes (ids) need std and logsumexp of all logits, too")

    def __len__(self) -> int:
        return len(self.logits)

    def to(self, device: torch.device) -> "SoftLabels":
        """The same on `device`; from pinned memory without waiting for the copy."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return SoftLabels(
            logits=self.logits.to(device, non_blocking=True),
            ids=move(self.ids),
            std=move(self.std),
            logsumexp=move(self.logsumexp),
            temperature=self.temperature,
        )


class CachedTeacher:
    """A teacher's answers for some views of each sample, read by memory map.

    Attributes:
        info: what labels.json says.
        ids: int64 (n,), ascending, the samples that have labels.
        views: views per sample.
        seed: of the views.
        num_classes: C.
        topk: how many logits were kept, None for all.
        temperature: that of the stored logsumexp.
    """

    def __init__(
        self, path: Path, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray], pin: bool = False
    ) -> None:
        self.path = path
        self.info = info
        self.ids = np.array(arrays[SAMPLE_IDS])
        self.views: int = info["views"]
        self.seed: int = info["seed"]
        self.num_classes: int = info["classes"]
        self.topk: int | None = info["topk"]
        self.temperature: float = info["temperature"]
        self._arrays = {name: array for name, array in arrays.items() if name != SAMPLE_IDS}
        self._pin = pin
        self._checked: set[int] = set()  # views whose records were found undamaged

    def __repr__(self) -> str:
        kept = "all" if self.topk is None else f"top {self.topk} of"
        return (
            f"CachedTeacher({self.info['teacher']['model']}, {len(self.ids)} samples x {self.views} views, "
            f"{kept} {self.num_classes} logits)"
        )

    @classmethod
    def open(
        cls,
        path: str | Path,
        store: Store,
        *,
        view: ViewSettings | None = None,
        ids: np.ndarray | None = None,
        seed: int | None = None,
        mixed: bool = False,
        teacher_digest: str | None = None,
        pin: bool = False,
    ) -> "CachedTeacher":
        """Open soft labels for training on `store`.

        Args:
            view: how the run's training views are drawn; None does not check it.
            ids: int64, the samples the run may see; None for all of the training split.
            seed: that of the run's views; None where plans go through `replay`, which takes the cache's.
            mixed: whether the run mixes images (mixup, CutMix), of which no cached label speaks.
            teacher_digest: of the teacher the run names, if it names one.
            pin: return pinned tensors, for copies to a GPU that nobody waits for.

        Raises:
            ValueError: labels that are unfinished, damaged or belong to something else; the message names the first
                difference.
        """
        path = Path(path)
        info = read_info(path)
        remade = f"make others: prunekd labels {store.path} --out LABELS"
        if info["fingerprint"] not in (store.fingerprint, *store.lineage):
            raise ValueError(
                f"the soft labels {path} belong to {info['store']['path']} (fingerprint {info['fingerprint'][:12]}), "
                f"not to {store.path} ({store.fingerprint[:12]}); {remade}"
            )
        wanted = {
            "view": None if view is None else view.to_dict(),
            "seed": seed,
            "teacher": None if teacher_digest is None else {"digest": teacher_digest},
        }
        for name, value in wanted.items():
            made = info[name] if name != "teacher" else {"digest": info["teacher"]["digest"]}
            different = None if value is None else first_difference(made, value, name)
            if different is not None:
                raise ValueError(f"the soft labels {path} were made with {different}; {remade}")
        if mixed:
            raise ValueError(
                f"the soft labels {path} speak of single images, the recipe mixes them (mix.mixup, mix.cutmix); "
                "switch mixing off or use an online teacher"
            )
        cached = cls(path, info, open_arrays(path, info), pin)
        cached._find(store.split("train").ids if ids is None else np.asarray(ids, dtype=np.int64))
        return cached

    def view_index_for(self, epoch: int) -> int:
        """The view an epoch shows: epoch mod views."""
        return epoch % self.views

    def replay(self, plan: EpochPlan, epoch: int) -> EpochPlan:
        """The plan of an epoch with views that have labels; samples, order and batches stay."""
        return replace(plan, seed=self.seed, view_index=self.view_index_for(epoch))

    def check(self, view_index: int) -> None:
        """Read all records of a view and check them; the second time this does nothing.

        Raises:
            ValueError: no such view, or damaged records.
        """
        if not 0 <= view_index < self.views:
            raise ValueError(
                f"view_index is {view_index}, and the soft labels {self.path} have views 0 to {self.views - 1}; take "
                "view_index_for(epoch)"
            )
        if view_index not in self._checked:
            check_view(self.path, self.info, self._arrays, view_index)
            self._checked.add(view_index)

    def lookup(self, ids: Tensor, view_index: int) -> SoftLabels:
        """Soft labels of the samples `ids` int64 (B,) on the host, on the host; one gather, no other copy.

        The first call for a view checks all its records.

        Raises:
            ValueError: a sample without a label, or as `check`.
        """
        self.check(view_index)
        rows = self._find(ids.numpy())
        found = {name: self._gather(array[view_index], rows) for name, array in self._arrays.items()}
        if self.topk is None:
            return SoftLabels(logits=found["logits"])
        return SoftLabels(
            logits=found["logits"],
            ids=found["topk_ids"],
            std=found["std"],
            logsumexp=found["logsumexp"],
            temperature=self.temperature,
        )

    def _find(self, ids: np.ndarray) -> np.ndarray:
        rows = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        missing = ids[self.ids[rows] != ids]
        if len(missing):
            raise ValueError(
                f"the soft labels {self.path} have none for {len(missing)} samples, the first with id {missing[0]}; "
                "make them for the subset you train on, or for all samples"
            )
        return rows

    def _gather(self, array: np.ndarray, rows: np.ndarray) -> Tensor:
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        out = torch.empty((len(rows), *array.shape[1:]), dtype=dtype, pin_memory=self._pin)
        np.take(array, rows, axis=0, out=out.numpy(), mode="clip")  # mode raise would go through a buffer of its own
        return out
