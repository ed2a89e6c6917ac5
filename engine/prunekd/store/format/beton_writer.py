"""The `.beton` version 2 file format, written: payloads page by page, then tables, then the header."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunekd.common.closing import Closing
from prunekd.store.format.beton import (
    ALLOCATION,
    DESCRIPTOR,
    HEADER,
    MIN_PAGE_SIZE,
    TYPE_INT,
    TYPE_RGB_IMAGE,
    VERSION,
    Field,
    metadata_ptr,
    metadata_type,
)

DEFAULT_PAGE_SIZE = 8 << 20
FIELDS = (
    Field(name="image", type_id=TYPE_RGB_IMAGE),
    Field(name="label", type_id=TYPE_INT),
    Field(name="id", type_id=TYPE_INT),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Consecutive samples as columns, each (n,): what the metadata and the allocation table say of them."""

    ids: np.ndarray
    labels: np.ndarray
    pointers: np.ndarray
    sizes: np.ndarray
    modes: np.ndarray
    widths: np.ndarray
    heights: np.ndarray


def check_page_size(page_size: int) -> None:
    """Raise ValueError unless FFCV accepts `page_size` (bytes): a power of two from 2 MiB to 2 GiB."""
    if not MIN_PAGE_SIZE <= page_size < 1 << 32 or page_size & (page_size - 1):
        raise ValueError(f"page size is {page_size} bytes; it must be a power of two from {MIN_PAGE_SIZE} to {1 << 31}")


def first_pointer(capacity: int, page_size: int) -> int:
    """Where the first payload goes: the first page that leaves room for the metadata of `capacity` samples."""
    reserved = metadata_ptr(len(FIELDS)) + capacity * metadata_type(FIELDS).itemsize
    return -(-reserved // page_size) * page_size


class BetonWriter(Closing):
    """Appends payloads in order; can go on where an interrupted writer stopped.

    The place of a payload depends only on the sizes of those before it. Room for the metadata of `capacity` samples is
    kept before the first page; `finish` may be given fewer rows, the rest of the room then stays zero.

    Args:
        path: the file; created, or with `cursor` opened and cut there.
        capacity: the most samples that will be written.
        page_size: bytes, see `check_page_size`; no payload may be larger.
        cursor: where to go on, the `cursor` of an earlier writer with the same capacity and page size.

    Raises:
        OSError: the disk is full or the file not writable.
    """

    def __init__(
        self, path: Path, *, capacity: int, page_size: int = DEFAULT_PAGE_SIZE, cursor: int | None = None
    ) -> None:
        check_page_size(page_size)
        self.path, self.capacity, self.page_size = path, capacity, page_size
        self.cursor = first_pointer(capacity, page_size) if cursor is None else cursor
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if cursor is None:
                os.ftruncate(self._file, 0)
            elif os.fstat(self._file).st_size < cursor:
                raise ValueError(f"{path} is shorter than the {cursor} bytes already written")
            os.ftruncate(self._file, self.cursor)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, payload: bytes) -> int:
        """Write one payload and return its offset. It must not be empty, nor larger than a page."""
        assert 0 < len(payload) <= self.page_size, len(payload)
        page_end = self._align(self.cursor + 1)
        if self.cursor + len(payload) > page_end:
            self.cursor = page_end  # FFCV reads whole pages: no payload may straddle two
        pointer = self.cursor
        self._write(payload, pointer)
        self.cursor += len(payload)
        return pointer

    def sync(self) -> None:
        """Bring everything written so far to the disk."""
        os.fsync(self._file)

    def finish(self, parts: Iterable[Rows]) -> int:
        """Write the tables of all rows (given in row order, in parts), last the header; returns the number of rows."""
        table = self._align(self.cursor)
        os.ftruncate(self._file, table)
        row_type, first = metadata_type(FIELDS), metadata_ptr(len(FIELDS))
        row = 0
        for part in parts:
            metadata, allocations = _tables(part, row)
            self._write(metadata.tobytes(), first + row * row_type.itemsize)
            self._write(allocations.tobytes(), table + row * ALLOCATION.itemsize)
            row += len(metadata)
        assert row <= self.capacity, (row, self.capacity)
        self._write(_descriptors().tobytes(), HEADER.itemsize)
        self.sync()
        header = np.array([(VERSION, len(FIELDS), self.page_size, row, table)], HEADER)
        self._write(header.tobytes(), 0)
        self.sync()
        return row

    def close(self) -> None:
        """Close the file; without `finish` it stays marked as unfinished."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _align(self, offset: int) -> int:
        return -(-offset // self.page_size) * self.page_size

    def _write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:  # a write may stop short, for instance where the disk fills up: the next one then raises
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written


def _tables(part: Rows, first_row: int) -> tuple[np.ndarray, np.ndarray]:
    """Metadata rows and allocation rows of consecutive samples, the first of which is row `first_row`."""
    metadata = np.zeros(len(part.ids), metadata_type(FIELDS))
    metadata["image"]["mode"] = part.modes
    metadata["image"]["width"] = part.widths
    metadata["image"]["height"] = part.heights
    metadata["image"]["data_ptr"] = part.pointers
    metadata["label"] = part.labels
    metadata["id"] = part.ids
    allocations = np.empty(len(part.ids), ALLOCATION)
    allocations["sample_id"] = np.arange(first_row, first_row + len(part.ids))
    allocations["ptr"] = part.pointers
    allocations["size"] = part.sizes
    return metadata, allocations


def _descriptors() -> np.ndarray:
    table = np.zeros(len(FIELDS), DESCRIPTOR)
    for row, field in zip(table, FIELDS, strict=True):
        row["type_id"] = field.type_id
        name = field.name.encode("ascii")
        row["name"][: len(name)] = np.frombuffer(name, np.uint8)
    return table
