"""What a store holds, in figures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from prunekd.common.distribution import Distribution
from prunekd.store.format.beton import MODE_JPEG, MODE_RAW
from prunekd.store.format.split import Split
from prunekd.store.format.store import Store
from prunekd.store.jobs.compaction_cost import CompactionCost
from prunekd.store.jobs.verify import Damage


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFacts:
    """One split of a store.

    Attributes:
        samples: their number; jpeg, raw: how many are stored as what.
        payload_bytes, file_bytes: of the samples alone, and of the `.beton` file.
        width, height: of the images, in pixels.
        class_sizes: samples per class, (C,).
    """

    samples: int
    payload_bytes: int
    file_bytes: int
    jpeg: int
    raw: int
    width: Distribution
    height: Distribution
    class_sizes: list[int]

    @classmethod
    def of(cls, split: Split, num_classes: int) -> "SplitFacts":
        """The figures of `split`; reads its index, not its payloads."""
        return cls(
            samples=len(split),
            payload_bytes=split.payload_bytes,
            file_bytes=split.path.stat().st_size,
            jpeg=int((split.modes == MODE_JPEG).sum()),
            raw=int((split.modes == MODE_RAW).sum()),
            width=Distribution.of(split.widths),
            height=Distribution.of(split.heights),
            class_sizes=np.bincount(split.labels, minlength=num_classes).tolist(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """A store in figures.

    Attributes:
        store: the store itself.
        splits: by name.
        compaction: what compacting it to a subset would cost and save, if that was asked for.
        damaged: samples that differ from what was stored; None if the store was not verified.
    """

    store: Store
    splits: Mapping[str, SplitFacts]
    compaction: CompactionCost | None = None
    damaged: list[Damage] | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        store = self.store
        values: dict[str, object] = {
            "kind": "store",
            "path": str(store.path),
            "classes": list(store.classes),
            "fingerprint": store.fingerprint,
            "source": store.source,
            "settings": store.settings,
            "splits": {name: asdict(split) for name, split in self.splits.items()},
            "quarantined": store.quarantined,
            "compacted": store.compacted,
        }
        if self.compaction is not None:
            values["compaction"] = asdict(self.compaction)
        if self.damaged is not None:
            values["damaged"] = [asdict(one) for one in self.damaged]
        return values


def store_facts(
    store: Store, compaction: CompactionCost | None = None, damaged: list[Damage] | None = None
) -> StoreFacts:
    """The figures of every split of `store`, with what else was found out about it."""
    splits = {name: SplitFacts.of(split, len(store.classes)) for name, split in store.splits.items()}
    return StoreFacts(store=store, splits=splits, compaction=compaction, damaged=damaged)
