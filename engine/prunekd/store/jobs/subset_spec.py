"""Converting a part of a source: which samples of a split are kept, and in which order they lie."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prunekd.common.registry import unknown
from prunekd.store.format.store import STORE_FILE, Compacted, Parent, Store, open_store
from prunekd.store.jobs.settings import ConvertSettings
from prunekd.store.sources import Source

logger = logging.getLogger(__name__)


class Selection(Protocol):
    """What a conversion needs of a subset that was selected on a store."""

    @property
    def ids(self) -> np.ndarray:
        """int64 (k,), the most valuable first."""

    @property
    def info(self) -> Mapping[str, Any]:
        """Provenance: split, fingerprint, store {path}, total, class_counts, class_totals."""


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
    parent: Parent = field(default_factory=Parent)
    lineage: tuple[str, ...] = ()
    ranking: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of_ids(cls, ids: np.ndarray, source: Source, split: str = "train", rank: bool = False) -> "SubsetSpec":
        """The samples `ids`, int64 (k,), of a split of `source`; with `rank` in this order, else in the source's.

        Raises:
            ValueError: as `check`.
        """
        spec = cls(split=split, ids=np.asarray(ids))
        spec.check(source)
        if rank:
            _warn_of_row_groups(source)
        parent: Parent = {"path": source.describe()["path"], "samples": len(source.labels(split))}
        return replace(spec, ids=spec.ids if rank else np.sort(spec.ids), parent=parent)

    @classmethod
    def of_selection(
        cls, selection: Selection, source: Source, settings: ConvertSettings, rank: bool = False
    ) -> "SubsetSpec":
        """The samples of a subset, to be converted straight from the source of the store it was made for.

        If that store is at hand it must have been made from this source with these settings. If not, the sizes of the
        classes and how many of each are kept must fit, and the log says that the rest is taken on trust.

        Args:
            rank: in the order of the subset, not of the source.

        Raises:
            ValueError: something does not fit; the message says what.
        """
        info = selection.info
        split, parent = info["split"], Path(info["store"]["path"])
        spec = cls(split=split, ids=selection.ids if rank else np.sort(selection.ids))
        spec.check(source)
        labels = source.labels(split)
        held, kept = (np.bincount(some, minlength=len(source.classes)) for some in (labels, labels[spec.ids]))
        if kept.tolist() != info["class_counts"] or (held < info["class_totals"]).any():
            raise ValueError(
                f"the subset was made for the store {parent}, whose classes or their sizes are not those of this source"
            )
        lineage: tuple[str, ...] = (info["fingerprint"],)
        store = open_store(parent) if (parent / STORE_FILE).is_file() else None
        if store is not None and info["fingerprint"] in (store.fingerprint, *store.lineage):
            _check_origin(store, source, settings)
            lineage = (store.fingerprint, *store.lineage)
        else:
            logger.info(f"{parent} is not at hand: that it came from this source with these settings is taken on trust")
        if rank:
            _warn_of_row_groups(source)
        return replace(
            spec,
            parent={"path": str(parent), "samples": info["total"]},
            lineage=lineage,
            ranking=dict(info) if rank else {},
        )

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

    def plan(self) -> dict[str, str]:
        """What tells this choice from another one."""
        return {"split": self.split, "ids": hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest()}

    def describe(self) -> Compacted:
        """What store.json says of it."""
        return {
            "split": self.split,
            "parent": self.parent,
            "lineage": list(self.lineage),
            "ranking": dict(self.ranking),
        }


def _check_origin(store: Store, source: Source, settings: ConvertSettings) -> None:
    if _inputs(store.source) != _inputs(source.describe()) or store.settings != settings.shaping():
        raise ValueError(
            f"the subset was made for the store {store.path}, which was converted from another source or with other "
            "settings than these; give the same ones, or compact that store"
        )


def _inputs(description: Mapping[str, object]) -> dict[str, object]:
    """What a source's description says of its inputs, wherever they lie."""
    return {name: value for name, value in description.items() if name not in ("path", "folders")}


def _warn_of_row_groups(source: Source) -> None:
    if source.kind == "parquet":
        logger.info(
            "Parquet is read row group by row group: by rank nearly every sample costs a whole one; converting "
            "without --rank and then `prunekd compact` is faster"
        )
