"""A store as it is read: open_store."""

from dataclasses import dataclass
from pathlib import Path

from prunekd.common.registry import unknown
from prunekd.store.format.beton import read_header
from prunekd.store.format.description import (
    STORE_FILE,
    STORE_VERSION,
    Compacted,
    Parent,
    SourceDescription,
    StoreInfo,
    read_description,
)
from prunekd.store.format.index import index_path, read_numbers
from prunekd.store.format.split import Payloads, Split
from prunekd.store.format.validate import validate_split

__all__ = [
    "STORE_FILE",
    "STORE_VERSION",
    "Compacted",
    "Parent",
    "Payloads",
    "SourceDescription",
    "Split",
    "Store",
    "StoreInfo",
    "index_path",
    "missing",
    "open_store",
    "partial_path",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Store:
    """A converted dataset.

    Attributes:
        path: its folder.
        classes: names, by label.
        fingerprint: 64 hexadecimal digits over id, key, label and checksum of every sample.
        source: what the samples came from, enough for `reopen_source`.
        settings: those of the conversion that shaped the samples.
        counts: by split, what became of the inputs: `samples`, `bytes`, `verbatim`, `encoded`, `raw`, `quarantined`.
        quarantined: one {split, key, reason} per unreadable input.
        ignored: what lay in the source and is no input, counted by kind.
        compacted: of a store made by `compact`: split, parent {path, samples}, lineage and ranking; else None.
    """

    path: Path
    classes: tuple[str, ...]
    fingerprint: str
    source: SourceDescription
    settings: dict[str, int | str]
    counts: dict[str, dict[str, int]]
    quarantined: list[dict[str, str]]
    ignored: dict[str, int]
    splits: dict[str, Split]
    compacted: Compacted | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"Store({str(self.path)!r}, {len(self.classes)} classes, {sizes})"

    @property
    def lineage(self) -> tuple[str, ...]:
        """Fingerprints of the stores of which this one holds a part, every sample under its id as it was."""
        return tuple(self.compacted["lineage"]) if self.compacted else ()

    def whole(self, split: str) -> int:
        """Samples of a split before any were left out by compacting: what keep ratios are fractions of."""
        if self.compacted and self.compacted["split"] == split and "samples" in self.compacted["parent"]:
            return int(self.compacted["parent"]["samples"])
        return len(self.split(split))

    def split(self, name: str) -> Split:
        """The split of this name; ValueError naming those there are."""
        if name not in self.splits:
            raise unknown(f"split of {self.path}", name, self.splits)
        return self.splits[name]


def open_store(path: str | Path) -> Store:
    """Open a store; its files are held against each other (see `validate`), keys and payloads are not read.

    Raises:
        ValueError: not a store, an unfinished one, or damaged: the message names the file.
        OSError: the storage failed.
    """
    path = Path(path)
    if not (path / STORE_FILE).is_file():
        raise ValueError(missing(path))
    info = read_description(path / STORE_FILE)
    classes = tuple(info["classes"])
    store = Store(
        path=path,
        classes=classes,
        fingerprint=info["fingerprint"],
        source=info["source"],
        settings=info["settings"],
        counts=info["splits"],
        quarantined=info["quarantined"],
        ignored=info["ignored"],
        splits={name: _open_split(path, name, len(classes)) for name in info["splits"]},
        compacted=info.get("compacted"),
    )
    _check_counts(store)
    return store


def partial_path(store: Path) -> Path:
    """The folder in which an unfinished store is kept until it appears as `store`."""
    return store.with_name(f".{store.name}.partial")


def missing(path: Path) -> str:
    """Why there is no store at `path`, and what to do."""
    path = path.absolute()  # "." has no name
    if path.name and partial_path(path).exists():
        return f"the making of {path} was interrupted; run the same command (convert or compact) again to finish it"
    if not path.exists():
        return f"{path} does not exist; make a store with `prunekd convert SOURCE {path}`"
    return f"{path} is not a store (it has no {STORE_FILE}); make one with `prunekd convert`"


def _open_split(store: Path, name: str, num_classes: int) -> Split:
    beton = store / f"{name}.beton"
    header = read_header(beton)
    numbers = read_numbers(index_path(beton), header.num_samples)
    split = Split(
        name=name,
        path=beton,
        ids=numbers["id"],
        labels=numbers["label"],
        pointers=numbers["pointer"],
        sizes=numbers["size"],
        modes=numbers["mode"],
        widths=numbers["width"],
        heights=numbers["height"],
        crc32=numbers["crc32"],
    )
    validate_split(split, header, num_classes)
    return split


def _check_counts(store: Store) -> None:
    """Raise ValueError unless store.json and the files agree on how many samples there are."""
    for name, split in store.splits.items():
        stated = store.counts[name]
        found = {"samples": len(split), "bytes": split.payload_bytes}
        if "quarantined" in stated:
            found["quarantined"] = sum(one.get("split") == name for one in store.quarantined)
        for what, count in found.items():
            if stated[what] != count:
                raise ValueError(
                    f"{store.path / STORE_FILE} is damaged: it says {stated[what]} {what} of {name}, and there are "
                    f"{count}; convert the dataset again"
                )
        if store.whole(name) < len(split):
            raise ValueError(
                f"{store.path / STORE_FILE} is damaged: {name} has {len(split)} samples, more than the "
                f"{store.whole(name)} of the store it is a part of; convert the dataset again"
            )
