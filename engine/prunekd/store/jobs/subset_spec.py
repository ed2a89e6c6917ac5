"""Converting a part of a source: which samples of a split are kept, and in which order they lie."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunekd.common.registry import unknown
from prunekd.store.sources import Source


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SubsetSpec:
    """The samples of one split that a conversion keeps; other splits are converted whole.

    Samples keep their ids. The store that comes of it has the same bytes as one that is converted whole and then
    compacted.

    Attributes:
        split: its name.
        ids: int64 (k,), each once, in the order in which the samples are to lie.
        parent: of the store on which they were chosen, {path, samples}.
        lineage: fingerprints of that store and of those it is a part of: scores, subsets and soft labels made for them
            are accepted by the new store. The caller answers for the samples being the same ones.
        ranking: where the choice comes from, as JSON has it; noted in store.json.
    """

    split: str
    ids: np.ndarray
    parent: Mapping[str, Any] = field(default_factory=dict)
    lineage: tuple[str, ...] = ()
    ranking: Mapping[str, Any] = field(default_factory=dict)

    def check(self, source: Source) -> None:
        """Raise ValueError unless `source` has the split and all of these samples, each named once."""
        if self.split not in source.splits:
            raise unknown("split of the source", self.split, source.splits)
        count = len(source.labels(self.split))
        if self.ids.ndim != 1 or not len(self.ids):
            raise ValueError(f"the samples to keep have the shape {self.ids.shape}; give at least one id, as (k,)")
        outside = self.ids[(self.ids < 0) | (self.ids >= count)]
        if len(outside):
            raise ValueError(f"sample id {outside[0]} is to be kept, but {self.split} has the ids 0 to {count - 1}")
        if len(np.unique(self.ids)) < len(self.ids):
            raise ValueError("a sample id is to be kept twice; name each sample once")

    def plan(self) -> dict[str, Any]:
        """What tells this choice from another one."""
        return {"split": self.split, "ids": hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest()}

    def describe(self) -> dict[str, Any]:
        """What store.json says of it."""
        return {
            "split": self.split,
            "parent": dict(self.parent),
            "lineage": list(self.lineage),
            "ranking": dict(self.ranking),
        }
