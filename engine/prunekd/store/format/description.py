"""store.json: what stands in it, and whether what was read can be that."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from prunekd.common.files import read_json
from prunekd.store.format.beton import regular_size

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


def read_description(file: Path) -> StoreInfo:
    """What a store.json says, every entry of the kind it must be.

    Raises:
        ValueError: it is damaged or of another version; the message names the file and the entry.
    """
    size = regular_size(file)
    if size > _MAX_DESCRIPTION:
        raise ValueError(f"{file} is damaged: {size} bytes are no description of a store; convert the dataset again")
    info = read_json(file)
    version = info.get("version") if isinstance(info, dict) else None
    if type(version) is int and version != STORE_VERSION:
        raise ValueError(f"{file.parent} has store version {version}; this prunekd reads version {STORE_VERSION}")
    for name, (right, what) in _ENTRIES.items():
        value = info.get(name) if isinstance(info, dict) else None
        if not right(value):
            raise ValueError(
                f"{file} is not the description of a store: {name!r} must be {what}; convert the dataset again"
            )
    compacted, splits = info.get("compacted"), info["splits"]
    if compacted is not None and compacted["split"] not in splits:
        raise ValueError(
            f"{file} is not the description of a store: 'compacted' is about the split {compacted['split']!r}, and "
            f"there are {', '.join(splits)}; convert the dataset again"
        )
    checked: StoreInfo = info
    return checked


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_map_of(value: object, *kinds: type) -> bool:
    """A map whose values are of these very types (True is no int)."""
    return isinstance(value, dict) and all(type(item) in kinds for item in value.values())


def _are_classes(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(item, str) for item in value)
        and len(set(value)) == len(value)
    )


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _are_splits(value: object) -> bool:
    """By split, counts; a name is one of a file in this folder."""
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(re.fullmatch("[A-Za-z0-9_]{1,64}", name) and isinstance(value[name], dict) for name in value)
        and all({"samples", "bytes"} <= set(counts) for counts in value.values())
        and all(_is_count(count) for counts in value.values() for count in counts.values())
    )


def _is_source(value: object) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), str) for name in ("kind", "path", "listing"))
        and _is_map_of(value.get("folders", {}), str)
        and _is_map_of(value.get("layout", {}), str, bool)
        and set(value.get("layout", {})) <= {"train_split", "val_split", "label_names"}
        and (type(value.get("val_fraction", 0.5)) is float and 0 < value.get("val_fraction", 0.5) < 1)
    )


def _is_settings(value: object) -> bool:
    return _is_map_of(value, int, str)


def _are_ignored(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


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
        and _is_count(value["parent"].get("samples", 1))
        and isinstance(value["parent"].get("path", ""), str)
        and isinstance(value.get("lineage"), list)
        and all(map(_is_fingerprint, value["lineage"]))
    )


_ENTRIES: dict[str, tuple[Callable[[object], bool], str]] = {
    "version": (lambda value: value == STORE_VERSION and type(value) is int, f"{STORE_VERSION}"),
    "classes": (_are_classes, "a list of different names"),
    "fingerprint": (_is_fingerprint, "64 hexadecimal digits"),
    "splits": (_are_splits, "counts (samples, bytes and others, from 0 on) by split"),
    "source": (_is_source, "a map with kind, path and listing"),
    "settings": (_is_settings, "a map of numbers and texts"),
    "ignored": (_are_ignored, "counts from 0 on"),
    "quarantined": (_are_quarantined, "a list of {split, key, reason}"),
    "compacted": (_is_compaction, "a map with split, parent, ranking and lineage"),
}
