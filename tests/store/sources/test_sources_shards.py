"""WebDataset and Parquet shards, against the image folder they were made of."""

import json
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source, recognise_source, reopen_source
from prunekd.store.sources.shards import find_shards
from store.datasets import add_bytes, hugging_face, image_folder, photographs, tar_bytes, webdataset_shards


@pytest.mark.parametrize(("label", "shuffle"), [("number", 0), ("name", 1), ("json", 2)])
def test_shards_give_the_samples_of_the_folder_however_they_are_spread(
    tmp_path: Path, label: str, shuffle: int
) -> None:
    folder = image_folder(tmp_path / "folder", count=20)
    shards = webdataset_shards(folder, tmp_path / "shards", shards=1 + shuffle, label=label, shuffle=shuffle)
    assert recognise_source(shards)[0] == "webdataset"
    unpacked = convert(open_source(folder), tmp_path / "unpacked", ConvertSettings())
    packed = convert(open_source(shards), tmp_path / "packed", ConvertSettings())
    assert packed.fingerprint == unpacked.fingerprint
    assert packed.classes == (unpacked.classes if label == "name" else ("0", "1", "2"))
    for name in ("train", "val"):
        assert packed.split(name).path.read_bytes() == unpacked.split(name).path.read_bytes()
    again = pickle.loads(pickle.dumps(reopen_source(packed.source)))  # noqa: S301 - a worker process gets it so
    assert again.read("val", 3) == (folder / "val" / unpacked.split("val").keys()[3]).read_bytes()


def test_patterns_name_shards_and_all_of_them_must_be_there(tmp_path: Path) -> None:
    shards = webdataset_shards(image_folder(tmp_path / "folder"), tmp_path / "shards")
    whole = open_source(shards)
    for pattern in ("photos-{train,val}-{0000..0002}.tar", "photos-*.tar", "photos-{train,val}-000[0-2].tar"):
        assert open_source(f"{shards}/{pattern}").keys("train") == whole.keys("train")
    assert open_source(f"{shards}/photos-train-{{0001..0002}}.tar").splits == ("train",)
    one = open_source(shards / "photos-train-0001.tar")
    assert set(one.keys("train")) < set(whole.keys("train"))
    with pytest.raises(ValueError, match=r"photos-train-0003\.tar does not exist"):
        open_source(f"{shards}/photos-train-{{0000..0003}}.tar")
    described = open_source(f"{shards}/*.tar").describe()
    assert reopen_source(described).describe() == described


def test_alternatives_are_expanded_as_the_shell_does(tmp_path: Path) -> None:
    wanted = [tmp_path / f"{a}{b}-x.tar" for a in ("p", "q") for b in ("08", "09", "10")]
    for path in wanted:
        path.touch()
    assert find_shards(tmp_path / "{p,q}{08..10}-x.tar", ".tar") == (tmp_path, sorted(wanted))
    with pytest.raises(ValueError, match="lower one comes first"):
        find_shards(tmp_path / "p{10..08}.tar", ".tar")
    with pytest.raises(ValueError, match="too many"):
        find_shards(tmp_path / "p{0..99999999999}.tar", ".tar")


def shard(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(tar_bytes(files))
    return path


def test_samples_are_whole_or_counted_and_dangerous_ones_are_quarantined(tmp_path: Path) -> None:
    good = photographs(1)[0][1]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_bytes(tar, "__index__.json", b"{}")
        for name, data in {
            "x/2.jpg": good, "x/2.cls": b"1", "x/10.cls": b"0", "x/10.extra.jpg": good, "x/10.png": good,
            "no_label.jpg": good, "no_label.txt": b"7", "no_image.cls": b"1",
            "odd.jpg": good, "odd.json": b'{"label": true}',
            "../../up.jpg": good, "../../up.cls": b"0", "/abs.jpg": good, "/abs.cls": b"0",
        }.items():  # fmt: skip
            add_bytes(tar, name, data)
        add_bytes(tar, "link.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add_bytes(tar, "link.cls", b"1")
    store = convert(open_source(tmp_path / "a.tar"), tmp_path / "store", ConvertSettings(max_quarantined=3))
    split = store.split("train")
    assert dict(zip(split.keys(), split.labels.tolist(), strict=True)) == {"x/10.png": 0, "x/2.jpg": 1}
    assert {entry["key"] for entry in store.quarantined} == {"../../up.jpg", "/abs.jpg", "link.jpg"}
    assert store.ignored == {"sample without a label": 2, "sample without an image": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "store"]


def test_members_of_one_name_are_told_apart_by_their_shards(tmp_path: Path) -> None:
    images = [data for _, data in photographs(2)]
    for number, data in enumerate(images):
        shard(tmp_path / f"train-{number}.tar", {"0.jpg": data, "0.cls": b"0"})
    source = open_source(tmp_path)
    assert source.keys("train") == ["train-0.tar/0.jpg", "train-1.tar/0.jpg"]
    assert [source.read("train", k) for k in range(2)] == images


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.tar": {"a.jpg": b"x"}}, "no image with a label"),
        ({"train.tar": {"a.jpg": b"x", "a.cls": b"0"}, "val.tar": {"b.jpg": b"x", "b.cls": b"1"}}, "class 1, which"),
        ({"train.tar": {"a.jpg": b"x", "a.cls": b"n1"}, "val.tar": {"b.jpg": b"x", "b.cls": b"n2"}}, "'n2', which"),
        ({"train.tar": {"a.jpg": b"x", "a.cls": b"123456789"}}, "labels reach from"),
        ({"train.tar": {"a.jpg": b"x", "a.json": b'{"label": -1}'}}, "labels reach from -1"),
        ({"val.tar": {"a.jpg": b"x", "a.cls": b"0"}}, "no files of train"),
    ],
)  # fmt: skip
def test_malformed_shards_are_named(tmp_path: Path, files: dict[str, dict[str, bytes]], message: str) -> None:
    for name, inner in files.items():
        shard(tmp_path / name, inner)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path)


@pytest.mark.parametrize("group", [1, 3, 100])
def test_parquet_gives_the_samples_of_the_folder(tmp_path: Path, group: int) -> None:
    folder = image_folder(tmp_path / "folder", count=20)
    files = hugging_face(folder, tmp_path / "hub", files=3, group=group)
    assert recognise_source(files)[0] == "parquet"
    unpacked = convert(open_source(folder), tmp_path / "unpacked", ConvertSettings())
    packed = convert(open_source(files), tmp_path / "packed", ConvertSettings(workers=3))
    assert packed.fingerprint == unpacked.fingerprint
    assert packed.classes == unpacked.classes
    for name in ("train", "val"):
        assert packed.split(name).path.read_bytes() == unpacked.split(name).path.read_bytes()
    again = pickle.loads(pickle.dumps(reopen_source(packed.source)))  # noqa: S301 - a worker process gets it so
    with ThreadPoolExecutor(4) as pool:  # in any order, from several threads
        rows = np.random.default_rng(0).permutation(20).tolist()
        got = list(pool.map(lambda row: again.read("train", row), rows))
    assert got == [(folder / "train" / unpacked.split("train").keys()[row]).read_bytes() for row in rows]


def test_files_that_say_less_are_read_too(tmp_path: Path) -> None:
    """No metadata, no paths, plain binary, labels as text, the splits in folder names, other columns beside."""
    images = photographs(6)
    for split in ("train", "test"):
        table = {"id": [f"{k}" for k in range(6)], "label": [name for name, _ in images], "img": [d for _, d in images]}
        (tmp_path / "default" / split).mkdir(parents=True)
        pq.write_table(pa.table(table), tmp_path / "default" / split / "0000.parquet", row_group_size=4)
    source = open_source(tmp_path)
    assert source.splits == ("train", "val")
    assert source.classes == ("n01447764", "n01448764", "n01449764")
    assert source.keys("val")[5] == "default/test/0000.parquet/0000005"
    assert [source.read("val", k) for k in range(6)] == [data for _, data in images]
    assert [source.classes[label] for label in source.labels("train")] == [name for name, _ in images]


def test_splits_beyond_two_are_counted(tmp_path: Path) -> None:
    files = hugging_face(image_folder(tmp_path / "folder"), tmp_path / "hub", files=1)
    (files / "data/test-00000-of-00001.parquet").write_bytes(b"never opened")
    (files / ".cache").mkdir()
    (files / ".cache/train.parquet").write_bytes(b"never opened")
    assert open_source(files).ignored == {"file of test beside val": 1}


def test_rows_without_an_image_and_damaged_groups_are_quarantined(tmp_path: Path) -> None:
    good = photographs(1)[0][1]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": good, "path": "a.jpg"}, {"bytes": None, "path": "/etc/passwd"}, None] + [
        {"bytes": good + os.urandom(9), "path": f"{k}.jpg"} for k in range(6)
    ]
    table = pa.table({"image": pa.array(rows, kind), "label": [0] * 9})
    path = tmp_path / "train.parquet"
    pq.write_table(table, path, row_group_size=3, compression="none", use_dictionary=False)
    with pq.ParquetFile(path) as file:
        chunk = file.metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset : chunk.data_page_offset + 30] = bytes([255]) * 30
    path.write_bytes(data)
    store = convert(open_source(path), tmp_path / "store", ConvertSettings(max_quarantined=5))
    assert store.split("train").ids.tolist() == [0, 6, 7, 8]
    reasons = [entry["reason"] for entry in store.quarantined]
    assert ["no bytes" in reason for reason in reasons] == [True, True, False, False, False]
    assert ["damaged" in reason for reason in reasons] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"]}, "clearly the label"),
        ({"label": [0]}, "clearly the image"),
        ({"a": [b"x"], "b": [b"x"], "label": [0]}, "clearly the image"),
        ({"image": [b"x"], "label": [None]}, "clearly the label|without a label"),
        ({"image": [b"x"], "label": [-1]}, "labels reach from -1"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=message) as caught:
        open_source(tmp_path / "train.parquet")
    assert str(tmp_path) in str(caught.value)


def test_class_names_must_cover_the_labels(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b"], "_type": "ClassLabel"}}
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.table({"image": [b"x"], "label": [2]}).replace_schema_metadata(said), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="from 0 to 1"):
        open_source(tmp_path)


@pytest.mark.parametrize("at", [0.0, 0.5, 0.98])
def test_files_that_are_cut_short_are_named(tmp_path: Path, at: float) -> None:
    files = hugging_face(image_folder(tmp_path / "folder"), tmp_path / "hub", files=1)
    path = files / "data/train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet"):
        open_source(files)


def test_a_row_group_too_large_for_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = hugging_face(image_folder(tmp_path / "folder"), tmp_path / "hub")
    monkeypatch.setattr("prunekd.store.sources.parquet._MAX_GROUP_BYTES", 1000)
    with pytest.raises(ValueError, match="fewer rows per group"):
        open_source(files).read("train", 0)


def test_an_image_folder_stays_one_beside_archives_and_tables(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "folder")
    for name in ("train.tar", "scores.parquet"):
        (folder / name).write_bytes(b"x")
    assert recognise_source(folder)[0] == "imagefolder"


def test_what_is_no_source_is_told_with_what_is(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"x\.zip is no source.*webdataset"):
        open_source(tmp_path / "x.zip")
