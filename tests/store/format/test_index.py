"""Reading a store: rows, keys, payloads, and disagreement between the files."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunekd.store import Split, Store, open_store
from prunekd.store.format import index as index_file
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from support import write_arrays


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return convert(open_source(write_arrays(tmp_path / "a.npz", train=40, val=8)), tmp_path / "store")


def split_of(ids: list[int]) -> Split:
    nothing = np.zeros(len(ids), np.int64)
    arrays = dict.fromkeys(("labels", "pointers", "sizes", "modes", "widths", "heights", "crc32"), nothing)
    return Split(name="train", path=Path("store/train.beton"), ids=np.array(ids, np.int64), **arrays)


@given(ids=st.lists(st.integers(0, 60), unique=True, min_size=1), data=st.data())
def test_rows_are_found_for_ids_in_any_order_with_gaps(ids: list[int], data: st.DataObject) -> None:
    split = split_of(ids)
    wanted = data.draw(st.lists(st.sampled_from(ids)))
    assert split.rows(np.array(wanted, np.int64)).tolist() == [ids.index(i) for i in wanted]
    stranger = data.draw(st.integers(-3, 70).filter(lambda i: i not in ids))
    with pytest.raises(ValueError, match=f"id {stranger} "):
        split.rows(np.array([*wanted, stranger]))


def test_payloads_are_read_by_many_threads_and_the_rest_by_request(store: Store, tmp_path: Path) -> None:
    split = store.split("train")
    images = np.load(tmp_path / "a.npz")["train_images"]
    wrong: list[int] = []
    with split.payloads() as payloads:

        def work() -> None:
            wrong.extend(row for row in range(40) if payloads.read(row) != images[row].tobytes())

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert split.payload_bytes == images.nbytes
    assert split.keys()[3:5] == split.keys(np.array([3, 4]))
    assert split.keys(np.array([7, 2])) == [split.keys()[7], split.keys()[2]]


def test_the_kernel_is_told_not_to_read_ahead(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, ...]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: told.append(arguments))
    with store.split("train").payloads():
        assert [arguments[1:] for arguments in told] == [(0, 0, os.POSIX_FADV_RANDOM)]


def test_an_unknown_split_is_answered_with_those_there_are(store: Store) -> None:
    with pytest.raises(ValueError, match="train, val"):
        store.split("tain")


def test_a_file_cut_short_after_opening_is_named_with_the_row(store: Store) -> None:
    split = store.split("train")
    with split.payloads() as payloads:
        with open(split.path, "r+b") as file:
            file.truncate(int(split.pointers[9]) + 10)
        assert payloads.read(8)
        with pytest.raises(ValueError, match=r"train\.beton ends inside row 9 \(10 of"):
            payloads.read(9)


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("pointer", 3, 1 << 40, "row 3 does not end within"),
        ("pointer", 3, 100, "before the first page"),
        ("size", 5, 1 << 40, "row 5 does not end within"),
        ("size", 5, 0, "empty"),
        ("size", 5, 7, "raw image"),
        ("label", 0, 4, "with 4 classes"),
        ("label", 0, -1, "with 4 classes"),
        ("mode", 0, 9, "neither"),
    ],
)
def test_an_index_that_contradicts_its_file_is_refused(
    store: Store, column: str, row: int, value: int, message: str
) -> None:
    path = store.split("train").index_path
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, [values]).cast(index_file.SCHEMA), path)
    with pytest.raises(ValueError, match=message) as caught:
        open_store(store.path)
    assert "train.beton" in str(caught.value)


def test_an_index_of_another_length_or_without_a_column_is_refused(store: Store) -> None:
    path = store.split("train").index_path
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(ValueError, match="39 rows in the index, 40 samples"):
        open_store(store.path)
    pq.write_table(table.drop_columns(["size"]), path)
    with pytest.raises(ValueError, match="'size'"):
        open_store(store.path)


def test_a_store_of_another_version_or_without_a_fact_is_refused(store: Store) -> None:
    path = store.path / "store.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "version": 7}))
    with pytest.raises(ValueError, match="version 7"):
        open_store(store.path)
    del info["classes"]
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match="classes"):
        open_store(store.path)


def test_what_is_no_store_is_told_apart(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        open_store(tmp_path / "nothing")
    with pytest.raises(ValueError, match="is not a store"):
        open_store(tmp_path)
    (tmp_path / ".half.partial").mkdir()
    with pytest.raises(ValueError, match="interrupted"):
        open_store(tmp_path / "half")


def test_the_index_file_does_not_depend_on_how_its_rows_arrive(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "ROW_GROUP", 16)
    table = pq.read_table(store.split("train").index_path)
    cuts = {"one": [40], "few": [15, 1, 17, 7], "many": [1] * 40}
    for name, sizes in cuts.items():
        starts = np.cumsum([0, *sizes])
        pieces = [table.slice(int(start), size) for start, size in zip(starts, sizes, strict=False)]
        assert index_file.write_index(tmp_path / name, pieces) == 40
        assert pq.ParquetFile(tmp_path / name).num_row_groups == 3
        assert (tmp_path / name).read_bytes() == (tmp_path / "one").read_bytes()
        fingerprint = index_file.Fingerprint()
        fingerprint.begin("train")
        for piece in pieces:
            fingerprint.add(piece)
        cuts[name] = fingerprint.hexdigest()  # type: ignore[assignment]
    assert len(set(map(str, cuts.values()))) == 1


def converted(tmp_path: Path, told: list[str], **changes: int) -> Store:
    return convert(open_source(tmp_path / "a.npz"), tmp_path / "late", ConvertSettings(chunk_size=8, **changes))


class Stop(Exception):
    """Ends a conversion from within."""


def interrupted(tmp_path: Path) -> None:
    def stop(done: int, total: int, quarantined: int) -> None:
        if done >= 30:
            raise Stop

    with pytest.raises(Stop):
        convert(open_source(tmp_path / "a.npz"), tmp_path / "late", ConvertSettings(chunk_size=8), stop)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("change", ["nothing", "settings", "source", "files", "lost part", "lost payloads"])
def test_an_interrupted_conversion_goes_on_or_says_why_it_starts_over(
    store: Store, tmp_path: Path, change: str, told: list[str]
) -> None:
    interrupted(tmp_path)
    partial = tmp_path / ".late.partial"
    changes: dict[str, int] = {}
    expected = "starting over: the "
    if change == "nothing":
        expected = "resuming.*: 24 of 48"
    elif change == "settings":
        changes, expected = {"quality": 80}, expected + "settings changed"
    elif change == "source":
        write_arrays(tmp_path / "a.npz", train=44, val=8)
        expected += "source changed"
    elif change == "files":
        os.utime(tmp_path / "a.npz", ns=(1, 1))
        expected += "input files of train changed"
    elif change == "lost part":
        (partial / "parts/train-00000001.parquet").write_bytes(b"")
        expected = "resuming.*: 8 of 48"
    else:
        (partial / "store/train.beton").write_bytes(b"")
        expected += "unfinished file of train changed"
    late = converted(tmp_path, told, **changes)
    assert len(told) == 1
    assert re.match(expected, told[0]), told
    assert not partial.exists()
    if change != "source":
        assert late.fingerprint == store.fingerprint
        for name in ("train.beton", "val.beton", "train.index.parquet", "val.index.parquet"):
            assert (late.path / name).read_bytes() == (store.path / name).read_bytes()


def test_two_conversions_to_one_target_do_not_mix(store: Store, tmp_path: Path) -> None:
    source = open_source(tmp_path / "a.npz")
    refused: list[str] = []

    def meanwhile(done: int, total: int, quarantined: int) -> None:
        if done == 20:
            with pytest.raises(RuntimeError, match="another conversion") as caught:
                convert(source, tmp_path / "late")
            refused.append(str(caught.value))

    convert(source, tmp_path / "late", progress=meanwhile)
    assert refused


def test_only_a_store_is_ever_overwritten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="not a store"):
        convert(open_source(tmp_path / "a.npz"), tmp_path / "mine", ConvertSettings(overwrite=True))
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"


def test_stores_are_made_and_opened_without_pandas(tmp_path: Path) -> None:
    """A plain installation has no pandas, which Arrow imports for some of its functions."""
    script = (
        "import sys\n"
        "class NoPandas:\n"
        "    def find_spec(name, *_):\n"
        "        if name.split('.')[0] == 'pandas':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoPandas)\n"
        "import prunekd\n"
        "store = prunekd.convert(sys.argv[1], sys.argv[2])\n"
        "print(len(prunekd.open_store(store.path).split('train').keys()))\n"
    )
    words = [str(write_arrays(tmp_path / "a.npz")), str(tmp_path / "made")]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.stdout == "96\n", done.stderr
