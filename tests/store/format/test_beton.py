"""The .beton format: what the writer writes the reader reads, and a lying header costs nothing."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prunekd.store.format.beton import payload_sizes, read_alloc_table, read_header, read_metadata
from prunekd.store.format.beton_writer import BetonWriter, Rows, check_page_size

PAGE = 1 << 21


def write(path: Path, payloads: list[bytes], capacity: int | None = None, pause_at: int | None = None) -> list[int]:
    """Write payloads, with `pause_at` in two goes; returns the pointers."""
    capacity = len(payloads) if capacity is None else capacity
    pause_at = len(payloads) if pause_at is None else pause_at
    with BetonWriter(path, capacity=capacity, page_size=PAGE) as writer:
        pointers = [writer.append(payload) for payload in payloads[:pause_at]]
        cursor = writer.cursor
        writer.append(b"lost: written after the last point that was noted")
    with BetonWriter(path, capacity=capacity, page_size=PAGE, cursor=cursor) as writer:
        pointers += [writer.append(payload) for payload in payloads[pause_at:]]
        writer.finish([rows(pointers[:2], payloads[:2], 0), rows(pointers[2:], payloads[2:], 2)])
    return pointers


def rows(pointers: list[int], payloads: list[bytes], first: int) -> Rows:
    n = len(pointers)
    ids = np.arange(first, first + n)
    return Rows(
        ids=ids * 3,
        labels=-ids,
        pointers=np.array(pointers, dtype=np.int64),
        sizes=np.array([len(p) for p in payloads], dtype=np.int64),
        modes=np.ones(n),
        widths=ids + 1,
        heights=np.full(n, 65535),
    )


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(PAGE // 3, PAGE) | st.integers(1, 3000), min_size=1, max_size=9),
    pause_at=st.integers(0, 9),
)
@example(sizes=[PAGE, 1, PAGE - 1, 2, PAGE], pause_at=2)
@example(sizes=[PAGE // 2 + 1] * 3, pause_at=1)
def test_payloads_of_any_size_are_found_again_inside_one_page_each(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], pause_at: int
) -> None:
    path = tmp_path_factory.mktemp("beton") / "x.beton"
    payloads = [os.urandom(16)[:size].ljust(size, bytes([k + 1])) for k, size in enumerate(sizes)]
    write(path, payloads, pause_at=min(pause_at, len(sizes)))
    header = read_header(path)
    metadata, table = read_metadata(header), read_alloc_table(header)
    pointers = metadata["image"]["data_ptr"].astype(np.int64)
    content = path.read_bytes()
    assert header.num_samples == len(sizes)
    assert header.alloc_table_ptr % PAGE == 0
    assert payload_sizes(pointers, table).tolist() == sizes
    for pointer, payload in zip(pointers.tolist(), payloads, strict=True):
        assert content[pointer : pointer + len(payload)] == payload
        assert pointer // PAGE == (pointer + len(payload) - 1) // PAGE
    assert metadata["id"].tolist() == [3 * k for k in range(len(sizes))]
    assert metadata["label"].tolist() == [-k for k in range(len(sizes))]
    assert (metadata["image"]["height"] == 65535).all()
    assert table["sample_id"].tolist() == list(range(len(sizes)))


def test_layout_byte_by_byte(tmp_path: Path) -> None:
    """Against the format written down by hand: header 24 bytes, fields of 1041, rows of 32, pages, table rows of 24."""
    path = tmp_path / "x.beton"
    (pointer,) = write(path, [b"payload"], capacity=5)
    data = path.read_bytes()
    assert struct.unpack_from("<HHIQQ", data) == (2, 3, PAGE, 1, 2 * PAGE)
    names = [(data[24 + 1041 * k], data[25 + 1041 * k : 41 + 1041 * k].rstrip(b"\0")) for k in range(3)]
    assert names == [(2, b"image"), (1, b"label"), (1, b"id")]
    row = 24 + 3 * 1041
    assert struct.unpack_from("<BHHQ", data, row) == (1, 1, 65535, pointer)
    assert struct.unpack_from("<qq", data, row + 16) == (0, 0)
    assert data[row + 32 : pointer] == bytes(pointer - row - 32)
    assert pointer == PAGE
    assert struct.unpack_from("<QQQ", data, 2 * PAGE) == (0, pointer, 7)
    assert len(data) == 2 * PAGE + 24


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, struct.pack("<H", 1), "version"),
        (2, struct.pack("<H", 0), "not a .beton"),
        (2, struct.pack("<H", 65535), "not a .beton"),
        (4, struct.pack("<I", 3000), "power of two"),
        (4, struct.pack("<I", 0), "power of two"),
        (8, struct.pack("<Q", 2**63), "damaged or cut short"),
        (8, struct.pack("<Q", 10**9), "damaged or cut short"),
        (16, struct.pack("<Q", 0), "never finished"),
        (16, struct.pack("<Q", 2**64 - 24), "damaged or cut short"),
        (16, struct.pack("<Q", 100), "damaged or cut short"),
        (24, b"\x63", "type 99"),
        (25, b"label\0", "repeat"),
        (25, b"\xff\xfe", "ASCII"),
    ],
)
def test_nonsense_in_the_header_is_named_before_anything_is_allocated(
    tmp_path: Path, offset: int, value: bytes, message: str
) -> None:
    path = tmp_path / "x.beton"
    write(path, [b"a", b"b"])
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(value)
    with pytest.raises(ValueError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(head=st.binary(max_size=80))
def test_any_first_bytes_are_refused_or_read_never_worse(tmp_path_factory: pytest.TempPathFactory, head: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "x.beton"
    path.write_bytes(head)
    with pytest.raises(ValueError, match=r"x\.beton"):
        read_header(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_header(tmp_path / "none.beton")
    with pytest.raises(ValueError, match="folder"):
        read_header(tmp_path)


def test_a_pointer_that_was_never_allocated_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    pointers = np.array(write(path, [b"a", b"bc"]))
    table = read_alloc_table(read_header(path))
    with pytest.raises(ValueError, match="row 1"):
        payload_sizes(pointers + np.array([0, 1]), table)
    with pytest.raises(ValueError, match="row 0"):
        payload_sizes(pointers, table[:0])


@pytest.mark.parametrize("size", [0, 1 << 20, (1 << 21) + 1, 3 << 21, 1 << 32])
def test_page_sizes_that_ffcv_refuses_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        check_page_size(size)
