"""The `.beton` version 2 file format, read: header, fields, metadata, allocation table.

Layout: header | field descriptors | metadata rows | padding | pages | allocation table up to the end of the file. All
integers are little-endian, all pointers absolute file offsets. The format is FFCV 1.0.2's (`ffcv/types.py`,
`ffcv/writer.py`, `ffcv/reader.py`, `ffcv/fields/`); files written by FFCV itself can be read here, and what
`beton_writer` writes is read by FFCV.

Traps of the format: the size of an image payload stands only in the allocation table; the inner structs of a metadata
row are packed while the row itself is aligned; `alloc_table_ptr == 0` marks a file whose writing was never finished.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VERSION = 2
MIN_PAGE_SIZE = 1 << 21
MODE_JPEG, MODE_RAW = 0, 1

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
DESCRIPTOR = np.dtype([("type_id", "u1"), ("name", "u1", (16,)), ("arguments", "u1", (1024,))])
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])

RGB_IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
BYTES = np.dtype([("ptr", "<u8"), ("size", "<u8")])
TYPE_INT, TYPE_RGB_IMAGE = 1, 2
FIELD_TYPES = {
    0: np.dtype("<f8"),  # Float
    TYPE_INT: np.dtype("<i8"),
    TYPE_RGB_IMAGE: RGB_IMAGE,
    3: BYTES,  # Bytes
    4: np.dtype("<u8"),  # NDArray: a pointer
    5: BYTES,  # JSON
    6: np.dtype("<u8"),  # TorchTensor: a pointer
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of every sample: its name and FFCV's number for its type (see FIELD_TYPES)."""

    name: str
    type_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands before the metadata, checked against the file's size (bytes)."""

    path: Path
    file_size: int
    page_size: int
    num_samples: int
    alloc_table_ptr: int
    fields: tuple[Field, ...]

    @property
    def metadata_type(self) -> np.dtype:
        """dtype of one metadata row, one member per field."""
        return metadata_type(self.fields)

    @property
    def metadata_ptr(self) -> int:
        """Offset of the first metadata row."""
        return metadata_ptr(len(self.fields))

    @property
    def num_allocations(self) -> int:
        """Rows of the allocation table."""
        return (self.file_size - self.alloc_table_ptr) // ALLOCATION.itemsize


def metadata_ptr(num_fields: int) -> int:
    """Offset of the first metadata row of a file with `num_fields` fields."""
    return HEADER.itemsize + num_fields * DESCRIPTOR.itemsize


def metadata_type(fields: tuple[Field, ...]) -> np.dtype:
    """dtype of one metadata row; the row is aligned, the structs inside are packed (FFCV lets NumPy lay it out)."""
    return np.dtype([(field.name, FIELD_TYPES[field.type_id]) for field in fields], align=True)


def read_header(path: Path) -> Header:
    """Read and check the header and the field descriptors.

    Nothing is allocated on the word of the file: every count is first held against the file's size.

    Raises:
        ValueError: not a `.beton` file of version 2, unfinished, damaged, or with a field type unknown here.
    """
    file_size = regular_size(path)
    with open(path, "rb") as file:
        head = file.read(HEADER.itemsize)
        if len(head) < HEADER.itemsize:
            raise ValueError(f"{path} is not a .beton file: {file_size} bytes are too few")
        header = np.frombuffer(head, HEADER)[0]
        version, num_fields = int(header["version"]), int(header["num_fields"])
        if version != VERSION or num_fields == 0 or metadata_ptr(num_fields) > file_size:
            raise ValueError(f"{path} is not a .beton file of version {VERSION} (its header says {version})")
        descriptors = np.frombuffer(file.read(num_fields * DESCRIPTOR.itemsize), DESCRIPTOR)
    result = Header(
        path=Path(path),
        file_size=file_size,
        page_size=int(header["page_size"]),
        num_samples=int(header["num_samples"]),
        alloc_table_ptr=int(header["alloc_table_ptr"]),
        fields=tuple(_field(path, descriptor) for descriptor in descriptors),
    )
    _check(result)
    return result


def regular_size(path: Path) -> int:
    """Size in bytes of the file at `path`.

    Raises:
        ValueError: there is none, or it is a folder or a device or a pipe, which could be read without end.
    """
    try:
        info = os.stat(path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; convert the dataset again") from None
    except NotADirectoryError:
        raise ValueError(f"{path} cannot be: what leads to it is not a folder") from None
    if stat.S_ISDIR(info.st_mode):
        raise ValueError(f"{path} is a folder, not a file")
    if not stat.S_ISREG(info.st_mode):
        raise ValueError(f"{path} is a device or a pipe, not a file")
    return info.st_size


def read_metadata(header: Header) -> np.ndarray:
    """The metadata rows, a structured array (num_samples,) with one member per field."""
    return np.fromfile(header.path, header.metadata_type, count=header.num_samples, offset=header.metadata_ptr)


def read_alloc_table(header: Header) -> np.ndarray:
    """The allocation table, a structured array of sample_id, ptr, size, in the order in which it was written."""
    return np.fromfile(header.path, ALLOCATION, count=header.num_allocations, offset=header.alloc_table_ptr)


def payload_sizes(pointers: np.ndarray, allocations: np.ndarray) -> np.ndarray:
    """Sizes in bytes, int64 (n,), of the payloads at `pointers` (n,), looked up in the allocation table.

    Raises:
        ValueError: a pointer has no row in the table.
    """
    order = np.argsort(allocations["ptr"], kind="stable")
    known = allocations["ptr"][order]
    at = np.searchsorted(known, pointers)
    found = at < len(known)
    found[found] = known[at[found]] == np.asarray(pointers)[found]
    if not found.all():
        row = int(np.argmin(found))
        raise ValueError(f"the payload of row {row} at offset {int(pointers[row])} is not in the allocation table")
    return allocations["size"][order][at].astype(np.int64)


def _field(path: Path, descriptor: np.void) -> Field:
    type_id = int(descriptor["type_id"])
    name = bytes(descriptor["name"]).rstrip(b"\0")
    if type_id not in FIELD_TYPES:
        raise ValueError(f"{path}: field {name!r} has type {type_id}; known are {sorted(FIELD_TYPES)}")
    if not name or not name.isascii() or b"\0" in name:
        raise ValueError(f"{path}: a field has the name {name!r}; names are 1 to 16 ASCII characters")
    return Field(name=name.decode("ascii"), type_id=type_id)


def _check(header: Header) -> None:
    """Hold every count and offset of the header against the file's size."""
    path, size, table = header.path, header.file_size, header.alloc_table_ptr
    names = [field.name for field in header.fields]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: field names repeat: {names}")
    if table == 0:
        raise ValueError(f"{path} was never finished (its allocation table is missing); convert it again")
    page = header.page_size
    if page == 0 or page & (page - 1):
        raise ValueError(f"{path} is damaged: its page size of {page} is not a power of two")
    end = header.metadata_ptr + header.num_samples * header.metadata_type.itemsize
    if not end <= table <= size or (size - table) % ALLOCATION.itemsize:
        raise ValueError(
            f"{path} is damaged or cut short: {header.num_samples} samples and an allocation table at {table} do not "
            f"fit its {size} bytes"
        )
    if header.num_allocations > header.num_samples * len(header.fields):
        raise ValueError(
            f"{path} is damaged: an allocation table of {header.num_allocations} rows for {header.num_samples} samples"
        )
