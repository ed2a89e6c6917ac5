"""Tampered stores: whatever was done to the files, samples are read as they were stored or a ValueError says why not.

Every store is opened and read in another process, which is watched: it must neither crash nor hang nor take memory.
"""

import json
import os
import select
import shutil
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from prunekd.input import open_reader
from prunekd.input.plan import eval_plan
from prunekd.input.readers import decode
from prunekd.input.views import ViewSettings
from prunekd.store import Store, open_store
from prunekd.store.format.beton import ALLOCATION, HEADER, metadata_ptr, metadata_type, read_header
from prunekd.store.format.beton_writer import FIELDS
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from support import require

WORKER = r"""
import json, resource, sys, zlib
from prunekd.store import open_store

def status(name):
    with open("/proc/self/status") as file:
        return int(file.read().split(name + ":")[1].split()[0]) << 10

def samples(path):
    store = open_store(path)
    found = {}
    for name, split in store.splits.items():
        keys = split.keys()
        with split.payloads() as payloads:
            for row in range(len(split)):
                payload = payloads.read(row)
                if zlib.crc32(payload) != split.crc32[row]:
                    raise ValueError("refused by every reader: its checksum differs")
                facts = split.labels, split.modes, split.widths, split.heights
                found[f"{name} {split.ids[row]}"] = [keys[row], zlib.crc32(payload), *(int(a[row]) for a in facts)]
    return found

samples(sys.argv[1])  # what is loaded once does not count
resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + (2 << 30),) * 2)
print("ready", flush=True)
for line in sys.stdin:
    before = status("VmHWM")
    try:
        answer = ["samples", samples(line.rstrip("\n"))]
    except Exception as error:
        kind = next((k.__name__ for k in (ValueError, OSError) if isinstance(error, k)), type(error).__name__)
        answer = [kind, str(error)]
    print(json.dumps([*answer, status("VmHWM") - before]), flush=True)
"""
LONGEST = 60  # seconds for one store, of which a few thousandths are needed
MOST = 48 << 20  # bytes that the process may grow by


class Worker:
    """Opens and reads stores in a process of its own."""

    def __init__(self, good: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", WORKER, str(good)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._answer() == "ready"

    def read(self, store: Path) -> tuple[str, Any]:
        """What came of it: ("samples", those read) or (the name of an error, its message)."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{store}\n")
        self._process.stdin.flush()
        kind, value, grown = json.loads(self._answer())
        assert grown < MOST, f"{grown >> 20} MiB taken: {value}"
        return kind, value

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], LONGEST)
        assert ready, "it hangs"
        line = stdout.readline()
        assert line, f"it crashed, code {self._process.wait()}"
        return line.strip()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Nine JPEGs and three raw images in two classes, and two for validation, in pages as small as can be."""
    folder = tmp_path_factory.mktemp("good")
    rng = np.random.default_rng(3)
    for k in range(14):
        split = "val" if k >= 12 else "train"
        path = folder / "source" / split / f"class{k % 2}" / f"{k:02}.{'png' if k % 4 == 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + k, 30 - k, 3), dtype=np.uint8)).save(path)
    return convert(open_source(folder / "source"), folder / "store", ConvertSettings(page_size=1 << 21))


@pytest.fixture(scope="module")
def worker(good: Store) -> Iterator[Worker]:
    process = Worker(good.path)
    yield process
    process.close()


@pytest.fixture(scope="module")
def stored(good: Store, worker: Worker) -> dict[str, Any]:
    kind, samples = worker.read(good.path)
    assert kind == "samples"
    assert len(samples) == 14
    return dict(samples)


@pytest.fixture
def copy(good: Store, tmp_path: Path) -> Path:
    shutil.copytree(good.path, tmp_path / "store")
    return tmp_path / "store"


def spans(file: Path) -> list[tuple[int, int]]:
    """The parts of a file that say something, as (start, stop)."""
    size = file.stat().st_size
    if file.suffix != ".beton":
        return [(0, size), (max(0, size - 600), size)]  # the end of the index is its table of contents
    header = read_header(file)
    rows = header.num_samples * metadata_type(FIELDS).itemsize
    first = metadata_ptr(len(FIELDS))
    payload = header.alloc_table_ptr - (1 << 21)
    names = [(HEADER.itemsize + 1041 * k, HEADER.itemsize + 1041 * k + 17) for k in range(3)]
    return [
        (0, HEADER.itemsize),
        *names,
        (first, first + rows),
        (payload, payload + 9000),
        (header.alloc_table_ptr, size),
    ]


NUMBERS = st.sampled_from([0, 1, 7, 2**16 - 1, 2**21, 2**31 - 1, 2**31, 2**40, 2**60, 2**63 - 1, 2**63, 2**64 - 1])
CONTENT = st.binary(min_size=1, max_size=12) | NUMBERS.map(lambda number: struct.pack("<Q", number))
FILES = ("train.beton", "train.index.parquet", "val.beton", "val.index.parquet", "store.json")
EDITS = st.lists(
    st.tuples(
        st.sampled_from(FILES[:2] * 2 + FILES[4:] + FILES),
        st.sampled_from(["write", "write", "flip", "flip", "cut", "grow"]),
        st.integers(0, 6),
        st.floats(0, 1, exclude_max=True),
        CONTENT,
    ),
    min_size=1,
    max_size=3,
)


def tamper(store: Path, name: str, how: str, span: int, where: float, content: bytes) -> None:
    """Change a file at a fraction `where` of one of its spans."""
    file = store / name
    if file.stat().st_size == 0:
        return
    try:
        parts = spans(file)
    except ValueError:
        parts = [(0, file.stat().st_size)]  # tampered with before
    start, stop = parts[span % len(parts)]
    at = start + int(where * (stop - start))
    with open(file, "r+b") as opened:
        if how == "cut":
            opened.truncate(at)
        elif how == "grow":
            most = 1 << 23 if name == "store.json" else 1 << 42  # what a store.json holds must be read
            opened.truncate(min(at + int.from_bytes(content[:6], "little"), most))
        else:
            opened.seek(at)
            if how == "flip":
                old = opened.read(1) or b"\0"
                content = bytes([old[0] ^ (1 << (content[0] % 8))])
                opened.seek(at)
            opened.write(content)


def check(worker: Worker, store: Path, stored: dict[str, Any]) -> str:
    """The samples are those stored, or the error names a file of the store; returns what came of it."""
    kind, value = worker.read(store)
    if kind == "samples":
        assert value == stored
    else:
        assert kind in ("ValueError", "OSError"), (kind, value)
        assert str(store) in value or "checksum differs" in value, value
    return f"{kind}: {value}"


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
@example(edits=[("train.beton", "write", 0, 8 / 24, struct.pack("<Q", 2**60))])
@example(edits=[("train.beton", "write", 0, 16 / 24, struct.pack("<Q", 2**60))])
@example(edits=[("train.beton", "grow", 6, 0.0, struct.pack("<Q", 2**42))])
def test_bytes_changed_anywhere_are_noticed_or_change_nothing(
    worker: Worker, good: Store, stored: dict[str, Any], tmp_path: Path, edits: list[Any]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(good.path, store)
    try:
        for edit in edits:
            tamper(store, *edit)
        check(worker, store, stored)
    finally:
        shutil.rmtree(store)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ENTRIES = ("version", "classes", "fingerprint", "splits", "source", "settings", "ignored", "quarantined", "compacted")


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(ENTRIES), JSON, min_size=1, max_size=2))
@example(changes={"splits": {"../store/train": {}}})
@example(changes={"splits": {"train": 3}})
@example(changes={"classes": "ab"})
@example(changes={"classes": ["a"]})
@example(changes={"compacted": {"split": "train", "parent": {}, "ranking": {}, "lineage": ["x"]}})
def test_a_store_json_of_any_content_is_refused_or_changes_nothing(
    worker: Worker, good: Store, stored: dict[str, Any], tmp_path: Path, changes: dict[str, Any]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(good.path, store)
    try:
        info = json.loads((store / "store.json").read_text())
        (store / "store.json").write_text(json.dumps({**info, **changes}))
        if set(changes) <= {"splits"} and isinstance(changes["splits"], dict):
            stored = {key: value for key, value in stored.items() if key.split()[0] in changes["splits"]}
        kind = check(worker, store, stored)
        if {"version", "classes", "fingerprint", "splits", "source", "settings"} & set(changes):
            right = {"source", "settings"}
            assert kind.startswith("ValueError") or all(isinstance(changes[n], dict) for n in right & set(changes))
    finally:
        shutil.rmtree(store)


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[1]", '"x"', "7", "[" * 200_000, '{"version": ' + "9" * 10_000 + "}", "\x00", '{"version": 1}'],
    ids=["empty", "cut", "null", "list", "text", "number", "nested", "long", "binary", "only a version"],
)
def test_garbage_for_a_store_json_is_named(worker: Worker, copy: Path, stored: dict[str, Any], text: str) -> None:
    (copy / "store.json").write_text(text)
    assert "store.json" in check(worker, copy, stored)


def test_a_store_json_too_large_to_be_one_is_not_read(worker: Worker, copy: Path, stored: dict[str, Any]) -> None:
    os.truncate(copy / "store.json", 1 << 40)
    assert "store.json is damaged: 1099511627776 bytes" in check(worker, copy, stored)


def edit_index(store: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = store / "train.index.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def put(name: str, values: list[Any] | pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, pa.array(values))


INDICES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a column less": (lambda table: table.drop_columns(["crc32"]), "no column 'crc32'"),
    "a column more": (lambda table: table.append_column("x", table["id"]), "its columns are"),
    "columns in another order": (lambda table: table.select(sorted(table.column_names)), "its columns are"),
    "texts for numbers": (put("size", ["7"] * 12), "'size' is string, not int64"),
    "short for long": (put("id", pa.array(range(12), pa.int32())), "'id' is int32, not int64"),
    "numbers for keys": (put("key", list(range(12))), "'key' is int64, not string"),
    "no values": (put("label", pa.array([0] * 11 + [None], pa.int64())), "without values"),
    "no rows": (lambda table: table.slice(0, 0), "0 rows in the index, 12 samples"),
    "a million rows": (lambda table: pa.concat_tables([table] * 100_000), "1200000 rows in the index, 12 samples"),
    "rows in another order": (lambda table: table.take(list(range(11, -1, -1))), "overlaps"),
    "an id twice": (put("id", [0, *range(11)]), "id of row 1 is another"),
    "other labels": (put("label", [1] + [0] * 11), "label of row"),
}


@pytest.mark.parametrize("case", INDICES)
def test_an_index_of_other_columns_or_rows_is_named_with_the_difference(
    worker: Worker, copy: Path, stored: dict[str, Any], case: str
) -> None:
    change, message = INDICES[case]
    edit_index(copy, change)
    told = check(worker, copy, stored)
    assert message in told
    assert "convert the dataset again" in told


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("label", 1, "label of row 2"),
        ("id", 3, "id of row 2"),
        ("width", 7, "width of row 2"),
        ("height", 65535, "height of row 2"),
        ("mode", 1, "mode of row 2"),
        ("data_ptr", 1 << 60, "offset of row 2"),
        ("ptr", 0, "offset of row 2"),
        ("size", 2**63, "size of row 2"),
    ],
)
def test_a_file_that_says_something_else_than_its_index_is_named_with_the_row(
    worker: Worker, copy: Path, stored: dict[str, Any], field: str, value: int, message: str
) -> None:
    header = read_header(copy / "train.beton")
    metadata = np.memmap(header.path, metadata_type(FIELDS), "r+", header.metadata_ptr, (12,))
    allocations = np.memmap(header.path, ALLOCATION, "r+", header.alloc_table_ptr, (12,))
    for columns in (metadata, metadata["image"], allocations):
        if field in (columns.dtype.names or ()):
            columns[field][2] = value
    metadata.flush()
    allocations.flush()
    assert message in check(worker, copy, stored)


def both(store: Path, row: int, **values: int) -> None:
    """Let index and file say the same of a row."""
    names = {"pointer": "ptr", "size": "size"}
    header = read_header(store / "train.beton")
    metadata = np.memmap(header.path, metadata_type(FIELDS), "r+", header.metadata_ptr, (12,))
    allocations = np.memmap(header.path, ALLOCATION, "r+", header.alloc_table_ptr, (12,))
    for name, value in values.items():
        if name in names:
            allocations[names[name]][row] = value
        if name == "pointer":
            metadata["image"]["data_ptr"][row] = value
        if name in ("width", "height"):
            metadata["image"][name][row] = value
        if name == "id":
            metadata["id"][row] = value
        table = pq.read_table(store / "train.index.parquet")
        column = table[name].to_numpy().copy()
        column[row] = value
        place = table.schema.get_field_index(name)
        edited = table.set_column(place, name, pa.array(column, table.schema.field(name).type))
        pq.write_table(edited, store / "train.index.parquet")
    metadata.flush()
    allocations.flush()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"id": 3}, "id 3 is there twice"),
        ({"id": -1}, "id of row 5 is negative"),
        ({"width": 60000, "height": 60000}, "larger than 178956970 pixels"),
        ({"width": 0}, "empty or larger"),
        ({"size": 0}, "payload of row 5 is empty"),
        ({"size": 2**62}, "does not end within the file"),
        ({"size": 5000}, "overlaps the one before"),
        ({"pointer": 100}, "before the first page"),
        ({"pointer": 2**62}, "does not end within the file"),
        ({"pointer": (1 << 21) + 1}, "row 5 overlaps the one before"),
    ],
)
def test_index_and_file_that_agree_on_nonsense_are_refused(
    worker: Worker, copy: Path, stored: dict[str, Any], values: dict[str, int], message: str
) -> None:
    both(copy, 5, **values)
    assert message in check(worker, copy, stored)


def test_what_is_no_plain_file_is_refused_before_it_is_opened(
    worker: Worker, copy: Path, stored: dict[str, Any]
) -> None:
    """A pipe would be waited for, a device read without end."""
    for name in FILES:
        file, kept = copy / name, copy / "kept"
        file.rename(kept)
        os.mkfifo(file)
        assert name in check(worker, copy, stored)
        file.unlink()
        file.symlink_to("/dev/zero")
        assert name in check(worker, copy, stored)
        file.unlink()
        file.mkdir()
        assert name in check(worker, copy, stored)
        file.rmdir()
        assert name in check(worker, copy, stored) or name == "store.json"
        kept.rename(file)
    assert check(worker, copy, stored).startswith("samples")


def test_an_opened_store_names_an_index_that_was_damaged_since(copy: Path) -> None:
    split = open_store(copy).split("train")
    index = split.index_path
    data = bytearray(index.read_bytes())
    at = data.index(b"class0/00.jpg") if b"class0/00.jpg" in data else 200
    data[at : at + 40] = bytes(40)
    index.write_bytes(data)
    with pytest.raises(ValueError, match=r"train\.index\.parquet is damaged"):
        split.keys()


@pytest.mark.parametrize("reader", ["native", "native without libjpeg", "ffcv"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_claims_to_be_huge_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, progressive: bool
) -> None:
    """65,500 x 65,500 pixels are 12.9 GB; the index says 30 x 20 and has the right checksum."""
    if reader == "ffcv":
        require("ffcv")
    for k in range(2):
        path = tmp_path / f"source/train/class{k}/image.jpg"
        path.parent.mkdir(parents=True)
        pixels = np.random.default_rng(k).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, progressive=progressive)
    split = convert(open_source(tmp_path / "source"), tmp_path / "store").split("train")
    with split.payloads() as payloads:
        bomb = bytearray(payloads.read(1))
    frame = bomb.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    bomb[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    with open(split.path, "r+b") as file:
        file.seek(int(split.pointers[1]))
        file.write(bomb)
    edit_index(tmp_path / "store", put("crc32", pa.array([int(split.crc32[0]), zlib.crc32(bomb)], pa.uint32())))
    if reader == "native without libjpeg":
        monkeypatch.setattr(decode, "library", lambda: "the test says so")
    store = open_store(tmp_path / "store")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        opened = open_reader(reader.split()[0], store, "train", workers=1)
    tracemalloc.start()
    try:
        with opened, pytest.raises(ValueError, match=r"sample 1 .*the JPEG is"):
            list(opened.epoch(eval_plan(store.split("train"), batch_size=2, view=ViewSettings(kind="center", size=8))))
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
