"""Converting a part of a source: the same store as converting everything and compacting it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from prunekd.cli import main
from prunekd.pruning import read_subset
from prunekd.store import Store, open_store
from prunekd.store.jobs.convert import ConvertSettings, SubsetSpec, convert
from prunekd.store.sources import open_source
from store.datasets import hugging_face, ilsvrc_archives, image_folder

SPLIT_COLUMNS = ("ids", "labels", "sizes", "modes", "widths", "heights", "crc32")


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives, their store, and half of it by rank in `half.parquet`."""
    root = tmp_path_factory.mktemp("subset_spec")
    folder = image_folder(root / "folder", count=40)
    bad = sorted((folder / "train").rglob("*.JPEG"))[3]
    bad.write_bytes(bad.read_bytes()[:300])  # unreadable: from here on ids are not row numbers
    ilsvrc_archives(folder, root / "archives")
    run("convert", root / "archives", root / "store")
    run("select", root / "store", "--policy", "random", "--keep", 0.5, "--out", root / "half.parquet")
    return root


def assert_same(one: Store, other: Store) -> None:
    assert one.fingerprint == other.fingerprint
    for name in ("train", "val"):
        assert one.split(name).path.read_bytes() == other.split(name).path.read_bytes()
        assert one.split(name).keys() == other.split(name).keys()


def test_a_ranked_conversion_is_the_compacted_store(work: Path, tmp_path: Path) -> None:
    half = work / "half.parquet"
    run("compact", work / "store", "--subset", half, "--out", tmp_path / "compacted")
    told = json.loads(run("convert", work / "archives", tmp_path / "s", "--subset", half, "--rank", "--json").stdout)
    made, compacted, subset = open_store(tmp_path / "s"), open_store(tmp_path / "compacted"), read_subset(half)
    assert_same(made, compacted)
    assert made.split("train").ids.tolist() == subset.ids.tolist()
    assert made.lineage == compacted.lineage
    assert made.compacted is not None
    assert compacted.compacted is not None
    assert made.compacted["parent"] == compacted.compacted["parent"]
    assert told["splits"]["train"]["samples"] == len(subset)
    subset.check(made)


def test_without_rank_samples_lie_in_the_order_of_the_source(work: Path, tmp_path: Path) -> None:
    run("convert", work / "folder", tmp_path / "s", "--subset", work / "half.parquet", code=2)  # another kind of source
    run("convert", work / "archives", tmp_path / "s", "--subset", work / "half.parquet")
    made, whole, subset = open_store(tmp_path / "s"), open_store(work / "store"), read_subset(work / "half.parquet")
    split = made.split("train")
    assert split.ids.tolist() == sorted(subset.ids.tolist())
    rows = whole.split("train").rows(split.ids)
    for column in SPLIT_COLUMNS:
        assert np.array_equal(getattr(split, column), getattr(whole.split("train"), column)[rows])
    with split.payloads() as mine, whole.split("train").payloads() as theirs:
        assert [mine.read(k) for k in range(len(split))] == [theirs.read(int(row)) for row in rows]
    subset.check(made)


def test_without_the_parent_store_its_word_is_taken_and_told(work: Path, tmp_path: Path) -> None:
    (work / "store").rename(work / "elsewhere")
    try:
        words = ("convert", work / "folder", tmp_path / "s", "--subset", work / "half.parquet", "--rank")
        assert "taken on trust" in run(*words).stderr
        read_subset(work / "half.parquet").check(open_store(tmp_path / "s"))
    finally:
        (work / "elsewhere").rename(work / "store")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{work}/archives", "{tmp}/s", "--rank"], "--subset"),
        (["{work}/archives", "{tmp}/s", "--subset", "{work}/half.parquet", "--max-side", "30"], "with other settings"),
        (["{work}/archives", "{tmp}/s", "--subset", "{work}/half.parquet", "--quality", "9"], "with other settings"),
        (["{tmp}/other", "{tmp}/s", "--subset", "{work}/half.parquet"], "sample id|classes or their sizes"),
        (["{work}/archives", "{tmp}/s", "--subset", "{tmp}/none.parquet"], "none.parquet"),
    ],
)
def test_what_does_not_fit_is_refused(work: Path, tmp_path: Path, words: list[str], message: str) -> None:
    image_folder(tmp_path / "other", count=40, classes=4)
    result = run("convert", *(word.format(work=work, tmp=tmp_path) for word in words), code=2)
    assert any(part in result.stderr for part in message.split("|"))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "test"}, "unknown split"),
        ({"ids": np.array([0, 99])}, "sample id 99"),
        ({"ids": np.array([-1])}, "sample id -1"),
        ({"ids": np.array([1, 0, 1])}, "twice"),
        ({"ids": np.array([], dtype=np.int64)}, "at least one"),
    ],
)
def test_samples_that_are_not_there_are_named(
    work: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    chosen = SubsetSpec(**{"split": "train", "ids": np.array([0]), **changes})
    with pytest.raises(ValueError, match=message):
        convert(open_source(work / "archives"), tmp_path / "s", subset=chosen)


def test_an_interrupted_part_goes_on_and_another_part_starts_over(work: Path, tmp_path: Path, told: list[str]) -> None:
    source, settings = open_source(work / "archives"), ConvertSettings(chunk_size=4)
    ids = np.random.default_rng(0).permutation(40)[:20]
    whole = convert(source, tmp_path / "whole", settings, subset=SubsetSpec(split="train", ids=ids))

    def stop(done: int, total: int, quarantined: int) -> None:
        assert total == 60
        if done == 13:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "s", settings, stop, SubsetSpec(split="train", ids=ids))
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "s", settings, stop, SubsetSpec(split="train", ids=ids[::-1].copy()))
    assert told == ["starting over: the samples to keep changed since the interrupted conversion"] * 3
    told.clear()
    convert(source, tmp_path / "other", settings, subset=SubsetSpec(split="train", ids=ids[::-1].copy()))
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "t", settings, stop, SubsetSpec(split="train", ids=ids))
    resumed = convert(source, tmp_path / "t", settings, subset=SubsetSpec(split="train", ids=ids))
    assert told == ["resuming an interrupted conversion: 12 of 60 inputs are done"]
    assert_same(resumed, whole)
    assert open_store(tmp_path / "other").fingerprint == whole.fingerprint  # which knows no order of the file


def test_by_rank_from_parquet_a_faster_way_is_told(tmp_path: Path) -> None:
    files = hugging_face(image_folder(tmp_path / "folder"), tmp_path / "hub")
    run("convert", files, tmp_path / "store")
    run("select", tmp_path / "store", "--policy", "random", "--keep", 0.5, "--out", tmp_path / "half.parquet")
    words = ("convert", files, tmp_path / "s", "--subset", tmp_path / "half.parquet", "--rank")
    assert "compact` is faster" in run(*words).stderr
