"""One split of a store: what samples it holds, where their bytes lie, and those bytes."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from prunekd.common.closing import Closing
from prunekd.store.format.index import index_path, read_keys


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
            rows = at if order is None else order[at].astype(np.int64)
        if outside.any():
            raise ValueError(
                f"sample id {int(ids[outside].flat[0])} is not in split {self.name!r} of {self.path.parent} "
                f"({int(outside.sum())} of {ids.size} are not); a compacted store holds only what was kept for it"
            )
        return rows

    def keys(self, rows: np.ndarray | None = None) -> list[str]:
        """Names of the samples in the source, of all rows or of the given ones; read from disk on every call."""
        return read_keys(self.index_path, rows)

    def payloads(self) -> "Payloads":
        """Open the file for reading payloads."""
        return Payloads(self)

    @cached_property
    def ids_ascend(self) -> bool:
        """Whether ids ascend from row to row, none of them twice."""
        return bool((self.ids[1:] > self.ids[:-1]).all())

    @cached_property
    def _dense(self) -> bool:
        return bool(self.ids[0] == 0 and self.ids[-1] == len(self) - 1) and self.ids_ascend

    @cached_property
    def _by_id(self) -> tuple[np.ndarray | None, np.ndarray]:
        """Rows by ascending id (None if they are in this order), and the ids in this order."""
        if self.ids_ascend:
            return None, self.ids
        order = np.argsort(self.ids).astype(np.int32 if len(self) < 1 << 31 else np.int64)
        return order, self.ids[order]


class Payloads(Closing):
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
