"""A store as it is read: open_store, and what stands in its store.json."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from prunekd.common.files import read_json
from prunekd.common.registry import unknown
from prunekd.store.format.beton import read_header, regular_size
from prunekd.store.format.index import index_path, read_numbers
from prunekd.store.format.split import Payloads, Split
from prunekd.store.format.validate import validate_split

__all__ = ["STORE_FILE", "STORE_VERSION", "Payloads", "Split", "Store", "index_path", "open_store", "partial_path"]

STORE_VERSION = 1
STORE_FILE = "store.json"
_MAX_DESCRIPTION = 1 << 28  # bytes; a million quarantined inputs take less


class _Input(TypedDict):
    kind: str
    path: str
    listing: str


class SourceDescription(_Input, total=False):
    """What samples came from, enough to find it again.

    Always: its kind, its path, and a digest of its listing. Of image folders: folders, by split. Of a source with a
    part held out: val_fraction. Where the user said what is which split: layout.
    """

    folders: dict[str, str]
    val_fraction: float
    layout: dict[str, str | bool]


class Parent(TypedDict, total=False):
    """The store of which a compacted one is a part: its path, and how many samples the split has there."""

    path: str
    samples: int


class Compacted(TypedDict):
    """Which part of another store a store is: of which split, of which stores (fingerprints), by which selection."""

    split: str
    parent: Parent
    lineage: list[str]
    ranking: dict[str, object]


class _Whole(TypedDict):
    version: int
    prunekd: str
    fingerprint: str
    classes: list[str]
    splits: dict[str, dict[str, int]]
    source: SourceDescription
    settings: dict[str, int | str]
    ignored: dict[str, int]
    quarantined: list[dict[str, str]]


class StoreInfo(_Whole, total=False):
    """Contents of store.json; see the attributes of Store."""

    compacted: Compacted


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
    info = _description(path)
    classes = tuple(info["classes"])
    return Store(
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


def partial_path(store: Path) -> Path:
    """The folder in which an unfinished store is kept until it appears as `store`."""
    return store.with_name(f".{store.name}.partial")


def _no_store(path: Path) -> str:
    if partial_path(path).exists():
        return f"the making of {path} was interrupted; run the same command (convert or compact) again to finish it"
    if not path.exists():
        return f"{path} does not exist; make a store with `prunekd convert SOURCE {path}`"
    return f"{path} is not a store (it has no {STORE_FILE}); make one with `prunekd convert`"


def _description(path: Path) -> StoreInfo:
    """What store.json says, every entry of the kind it must be."""
    file = path / STORE_FILE
    if not file.is_file():
        raise ValueError(_no_store(path))
    size = regular_size(file)
    if size > _MAX_DESCRIPTION:
        raise ValueError(f"{file} is damaged: {size} bytes are no description of a store; convert the dataset again")
    info = read_json(file)
    version = info.get("version") if isinstance(info, dict) else None
    if type(version) is int and version != STORE_VERSION:
        raise ValueError(f"{path} has store version {version}; this prunekd reads version {STORE_VERSION}")
    for name, (right, what) in _ENTRIES.items():
        value = info.get(name) if isinstance(info, dict) else None
        if not right(value):
            raise ValueError(
                f"{file} is not the description of a store: {name!r} must be {what}; convert the dataset again"
            )
    checked: StoreInfo = info
    return checked


def _is_map(value: object) -> bool:
    return isinstance(value, dict)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(item, str) for item in value)


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _are_splits(value: object) -> bool:
    """By split, counts; a name is one of a file in this folder."""
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(re.fullmatch("[A-Za-z0-9_]{1,64}", name) and isinstance(value[name], dict) for name in value)
        and all(type(count) is int for counts in value.values() for count in counts.values())
    )


def _are_quarantined(value: object) -> bool:
    texts = {"key", "reason"}
    return isinstance(value, list) and all(
        isinstance(item, dict) and texts <= set(item) and all(isinstance(part, str) for part in item.values())
        for item in value
    )


def _is_compaction(value: object) -> bool:
    return value is None or (
        isinstance(value, dict)
        and isinstance(value.get("split"), str)
        and all(isinstance(value.get(name), dict) for name in ("parent", "ranking"))
        and isinstance(value["parent"].get("samples", 1), int)
        and isinstance(value.get("lineage"), list)
        and all(map(_is_fingerprint, value["lineage"]))
    )


_ENTRIES: dict[str, tuple[Callable[[object], bool], str]] = {
    "version": (lambda value: value == STORE_VERSION and type(value) is int, f"{STORE_VERSION}"),
    "classes": (_are_texts, "a list of names"),
    "fingerprint": (_is_fingerprint, "64 hexadecimal digits"),
    "splits": (_are_splits, "counts by split"),
    "source": (_is_map, "a map"),
    "settings": (_is_map, "a map"),
    "ignored": (_is_map, "a map"),
    "quarantined": (_are_quarantined, "a list of {split, key, reason}"),
    "compacted": (_is_compaction, "a map with split, parent, ranking and lineage"),
}


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
