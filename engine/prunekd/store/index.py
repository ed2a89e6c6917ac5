"""A store as it is read: what samples it holds and where their bytes lie."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from prunekd.common.files import read_json
from prunekd.common.registry import unknown
from prunekd.store.beton import MODE_JPEG, MODE_RAW, Header, read_header
from prunekd.store.index_file import column, read_columns

STORE_VERSION = 1
STORE_FILE = "store.json"
NUMERIC_COLUMNS = {
    "id": np.int64,
    "label": np.int64,
    "pointer": np.int64,
    "size": np.int64,
    "mode": np.uint8,
    "width": np.int32,
    "height": np.int32,
    "crc32": np.uint32,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """One `.beton` file with its index. All arrays are (n,), in row order of the file.

    Attributes:
        name: `train` or `val`.
        path: the `.beton` file.
        ids: int64; labels: int64; pointers: int64 file offsets; sizes: int64 bytes; modes: uint8, 0 JPEG and 1 raw
            (height x width x 3 uint8); widths, heights: int32 pixels; crc32: uint32 of the payload.
    """

    name: str
    path: Path
    ids: np.ndarray
    labels: np.ndarray
    pointers: np.ndarray
    sizes: np.ndarray
    modes: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    crc32: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} samples, {self.payload_bytes} bytes, {str(self.path)!r})"

    @cached_property
    def payload_bytes(self) -> int:
        """Bytes of all payloads, without the padding of the file."""
        return int(self.sizes.sum())

    @property
    def index_path(self) -> Path:
        """The Parquet file with one row per sample."""
        return index_path(self.path)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Rows, int64 of the shape of `ids`, of the samples with these ids.

        Raises:
            ValueError: an id is not in this split; the message names the first.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size == 0:
            return ids.copy()
        if self._dense:
            outside = (ids < 0) | (ids >= len(self))
            rows = ids.copy()
        else:
            order, known = self._by_id
            at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            outside = known[at] != ids
            rows = order[at]
        if outside.any():
            raise ValueError(
                f"sample id {int(ids[outside].flat[0])} is not in split {self.name!r} of {self.path.parent} "
                f"({int(outside.sum())} of {ids.size} are not); a compacted store holds only what was kept for it"
            )
        return rows

    def keys(self, rows: np.ndarray | None = None) -> list[str]:
        """Names of the samples in the source, of all rows or of the given ones; read from disk on every call."""
        keys = read_columns(self.index_path, ["key"])["key"]
        return (keys if rows is None else keys.take(np.asarray(rows, dtype=np.int64))).to_pylist()

    def payloads(self) -> "Payloads":
        """Open the file for reading payloads."""
        return Payloads(self)

    @cached_property
    def _dense(self) -> bool:
        return bool((self.ids == np.arange(len(self))).all())

    @cached_property
    def _by_id(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.ids, kind="stable")
        return order, self.ids[order]


class Payloads:
    """Reads payloads by row with `os.pread` of exactly their bytes; threads may share it.

    The kernel is told that access is random: with its default read-ahead a sparse subset of the file costs nearly as
    much disk traffic as all of it.
    """

    def __init__(self, split: Split) -> None:
        self._split = split
        self._file = os.open(split.path, os.O_RDONLY)
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, row: int) -> bytes:
        """The payload of a row: a JPEG file, or height x width x 3 uint8, as the row's mode says.

        Raises:
            ValueError: the file ends before the payload does; the message names file and row.
        """
        size, offset = int(self._split.sizes[row]), int(self._split.pointers[row])
        data = os.pread(self._file, size, offset)
        while len(data) < size:
            more = os.pread(self._file, size - len(data), offset + len(data))
            if not more:
                raise ValueError(
                    f"{self._split.path} ends inside row {row} ({len(data)} of {size} bytes at {offset}); "
                    "convert the dataset again"
                )
            data += more
        return data

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> "Payloads":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
    source: dict[str, Any]
    settings: dict[str, Any]
    counts: dict[str, dict[str, int]]
    quarantined: list[dict[str, str]]
    ignored: dict[str, int]
    splits: dict[str, Split]
    compacted: dict[str, Any] | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"Store({str(self.path)!r}, {len(self.classes)} classes, {sizes})"

    @property
    def lineage(self) -> tuple[str, ...]:
        """Fingerprints of the stores of which this one holds a part, every sample under its id as it was."""
        return tuple(self.compacted["lineage"]) if self.compacted else ()

    def split(self, name: str) -> Split:
        """The split of this name; ValueError naming those there are."""
        if name not in self.splits:
            raise unknown(f"split of {self.path}", name, self.splits)
        return self.splits[name]


def open_store(path: str | Path) -> Store:
    """Open a store; its files are held against each other, keys are not read.

    Raises:
        ValueError: not a store, an unfinished conversion, or index and file disagree.
    """
    path = Path(path)
    if not (path / STORE_FILE).is_file():
        raise ValueError(_no_store(path))
    info = read_json(path / STORE_FILE)
    try:
        if info["version"] != STORE_VERSION:
            raise ValueError(f"{path} has store version {info['version']}; this prunekd reads version {STORE_VERSION}")
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
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path / STORE_FILE} is not the description of a store ({error!r})") from None


def partial_path(store: Path) -> Path:
    """The folder in which an unfinished store is kept until it appears as `store`."""
    return store.with_name(f".{store.name}.partial")


def index_path(beton: Path) -> Path:
    """The index of a `.beton` file."""
    return beton.with_suffix(".index.parquet")


def _no_store(path: Path) -> str:
    if partial_path(path).exists():
        return f"the making of {path} was interrupted; run the same command (convert or compact) again to finish it"
    if not path.exists():
        return f"{path} does not exist; make a store with `prunekd convert SOURCE {path}`"
    return f"{path} is not a store (it has no {STORE_FILE}); make one with `prunekd convert`"


def _open_split(store: Path, name: str, num_classes: int) -> Split:
    beton = store / f"{name}.beton"
    header = read_header(beton)
    table = read_columns(index_path(beton), list(NUMERIC_COLUMNS))
    ids, labels, pointers, sizes, modes, widths, heights, crc32 = (
        column(table, key).astype(kind, copy=False) for key, kind in NUMERIC_COLUMNS.items()
    )
    split = Split(
        name=name,
        path=beton,
        ids=ids,
        labels=labels,
        pointers=pointers,
        sizes=sizes,
        modes=modes,
        widths=widths,
        heights=heights,
        crc32=crc32,
    )
    problem = _disagreement(split, header, num_classes)
    if problem:
        raise ValueError(f"{beton} and its index disagree: {problem}; convert the dataset again")
    return split


def _disagreement(split: Split, header: Header, num_classes: int) -> str | None:
    """What is wrong between index and file, None if nothing shows; reads neither metadata nor payloads."""
    count = len(split)
    if count != header.num_samples:
        return f"{count} rows in the index, {header.num_samples} samples in the file"
    if count != header.num_allocations:
        return f"{count} rows in the index, {header.num_allocations} payloads in the file"
    if [field.name for field in header.fields] != ["image", "label", "id"]:
        return f"the fields are {[field.name for field in header.fields]}, not image, label, id"
    if count == 0:
        return "it holds no samples"
    start = header.metadata_ptr + count * header.metadata_type.itemsize
    if split.sizes.min() < 1 or split.pointers.min() < start:
        return "a payload is empty or lies before the first page"
    if (split.pointers > header.alloc_table_ptr - split.sizes).any():
        row = int(np.argmax(split.pointers > header.alloc_table_ptr - split.sizes))
        return f"the payload of row {row} does not end within the file"
    if split.labels.min() < 0 or split.labels.max() >= num_classes:
        return f"labels reach from {split.labels.min()} to {split.labels.max()} with {num_classes} classes"
    if not np.isin(split.modes, (MODE_JPEG, MODE_RAW)).all():
        return "a row is neither JPEG nor raw"
    pixels = split.widths.astype(np.int64) * split.heights
    if (split.sizes != 3 * pixels)[split.modes == MODE_RAW].any():
        return "the size of a raw image is not width x height x 3"
    return None
