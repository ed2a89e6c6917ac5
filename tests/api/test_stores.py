"""Making stores through the public face: paths and objects alike, the same bytes as through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import prunekd
from prunekd.api.stores import compact, export
from prunekd.cli import main
from prunekd.pruning import Subset, select
from prunekd.store import Store
from prunekd.store.sources import open_source
from store.datasets import hugging_face, image_folder
from support import write_arrays

FILES = ("train.beton", "train.index.parquet", "val.beton", "val.index.parquet", "store.json")


def verb(*words: object) -> None:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output


def contents(folder: Path, names: tuple[str, ...] = FILES) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_arrays(tmp_path / "source.npz")


@pytest.fixture
def half(tiny_store: Store) -> Subset:
    return select(tiny_store, "random", 0.5, seed=3)


def test_a_store_is_opened_by_either_kind_of_path_and_passes_through(tiny_store: Store) -> None:
    assert prunekd.open_store(str(tiny_store.path)).fingerprint == tiny_store.fingerprint
    assert prunekd.open_store(tiny_store.path).fingerprint == tiny_store.fingerprint
    assert prunekd.open_store(tiny_store) is tiny_store
    with pytest.raises(ValueError, match="does not exist; make a store"):
        prunekd.open_store(tiny_store.path / "nowhere")


def test_a_conversion_is_the_same_from_paths_a_source_and_the_command_line(source: Path, tmp_path: Path) -> None:
    verb("convert", source, tmp_path / "verb")
    prunekd.convert(str(source), str(tmp_path / "str"))
    made = prunekd.convert(source, tmp_path / "path", workers=1)
    prunekd.convert(open_source(source), tmp_path / "object")
    assert made.path == tmp_path / "path"
    expected = contents(tmp_path / "verb")
    assert all(contents(tmp_path / name) == expected for name in ("str", "path", "object"))


def test_what_a_source_was_taken_for_is_logged(source: Path, tmp_path: Path, told: list[str]) -> None:
    prunekd.convert(source, tmp_path / "auto")
    found = ["train: 96 images, 4 classes, 24 per class", "val: 32 images, 4 classes, 8 per class"]
    assert told == [f"{source} is read as arrays (an .npz file); --source says otherwise", *found]
    told.clear()
    prunekd.convert(source, tmp_path / "named", kind="arrays")
    assert told == found


def test_progress_begins_at_nothing_and_ends_with_everything(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    prunekd.convert(source, tmp_path / "store", progress=lambda *done: seen.append(done))
    assert seen[0] == (0, 128, 0)
    assert seen[-1] == (128, 128, 0)


def test_settings_shape_the_store(tmp_path: Path) -> None:
    photos = image_folder(tmp_path / "photos", count=12, classes=2)
    made = prunekd.convert(photos, tmp_path / "store", max_side=20, mode="raw")
    split = made.split("train")
    assert (split.modes == 1).all()
    assert max(split.widths.max(), split.heights.max()) == 20
    again = prunekd.convert(photos, tmp_path / "store", max_side=16, mode="raw", overwrite=True)
    assert again.split("train").widths.max() <= 16


def test_a_part_of_a_source_is_given_as_a_subset_its_file_or_ids(source: Path, tmp_path: Path) -> None:
    whole = prunekd.convert(source, tmp_path / "whole")
    half = select(whole, "random", 0.5)
    half.save(tmp_path / "half.parquet")
    by_rank = prunekd.convert(source, tmp_path / "object", subset=half, rank=True)
    prunekd.convert(source, tmp_path / "file", subset=str(tmp_path / "half.parquet"), rank=True)
    by_ids = prunekd.convert(source, tmp_path / "ids", subset=half.ids, rank=True)
    compacted = compact(whole, tmp_path / "compacted", subset=half)
    betons = ("train.beton", "val.beton")
    assert contents(tmp_path / "object") == contents(tmp_path / "file")
    assert contents(compacted.path, betons) == contents(by_rank.path, betons) == contents(by_ids.path, betons)
    half.check(by_rank)
    assert by_ids.whole("train") == 96  # a keep ratio is a fraction of the source
    assert by_ids.lineage == ()
    unranked = prunekd.convert(source, tmp_path / "unranked", subset=half.ids)
    assert unranked.split("train").ids.tolist() == sorted(half.ids.tolist())
    assert unranked.fingerprint == by_rank.fingerprint
    verb("inspect", by_ids.path)


def test_ids_by_rank_from_parquet_are_told_of_the_faster_way(tmp_path: Path, told: list[str]) -> None:
    files = hugging_face(image_folder(tmp_path / "folder"), tmp_path / "hub")
    prunekd.convert(files, tmp_path / "store", subset=np.array([3, 1]), rank=True)
    assert "compact` is faster" in told[-1]


def test_a_conversion_that_cannot_be_is_refused(source: Path, tmp_path: Path, tiny_store: Store) -> None:
    target = tmp_path / "x"
    with pytest.raises(ValueError, match="the source is open already"):
        prunekd.convert(open_source(source), target, kind="arrays")
    with pytest.raises(ValueError, match=r"val_fraction 0\.1"):
        prunekd.convert(open_source(source), target, val_fraction=0.1)
    with pytest.raises(ValueError, match="orders the samples of a subset"):
        prunekd.convert(source, target, rank=True)
    with pytest.raises(ValueError, match="unknown mode 'jpg'"):
        prunekd.convert(source, target, mode="jpg")
    with pytest.raises(ValueError, match="sample id 96 is to be kept"):
        prunekd.convert(source, target, subset=np.array([0, 96]))
    with pytest.raises(ValueError, match="does not exist"):
        prunekd.convert(tmp_path / "nowhere", target)
    with pytest.raises(ValueError, match="--overwrite"):
        prunekd.convert(source, tiny_store.path)
    assert not target.exists()


def test_compacting_takes_a_subset_its_file_or_ids(tiny_store: Store, half: Subset, tmp_path: Path) -> None:
    half.save(tmp_path / "half.parquet")
    verb("compact", tiny_store.path, "--subset", tmp_path / "half.parquet", "--out", tmp_path / "verb")
    compact(str(tiny_store.path), str(tmp_path / "str"), subset=str(tmp_path / "half.parquet"))
    compact(tiny_store, tmp_path / "object", subset=half)
    by_ids = compact(tiny_store, tmp_path / "ids", subset=half.ids)
    expected = contents(tmp_path / "verb")
    assert all(contents(tmp_path / name) == expected for name in ("str", "object"))
    assert contents(by_ids.path)[:4] == expected[:4]
    assert by_ids.compacted is not None
    assert by_ids.compacted["ranking"]["policy"] == "given"


def test_compacting_to_a_smaller_fraction_is_compacting_to_the_smaller_subset(
    tiny_store: Store, half: Subset, tmp_path: Path
) -> None:
    compact(tiny_store, tmp_path / "a", subset=half, keep=0.2)
    compact(tiny_store, tmp_path / "b", subset=select(tiny_store, "random", 0.2, seed=3))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_an_export_takes_paths_and_objects_and_returns_what_it_wrote(
    tiny_store: Store, half: Subset, tmp_path: Path
) -> None:
    half.save(tmp_path / "half.parquet")
    words = ("--format", "tfrecord", "--subset", tmp_path / "half.parquet")
    verb("export", tiny_store.path, *words, "--out", tmp_path / "verb")
    export(str(tiny_store.path), str(tmp_path / "str"), format="tfrecord", subset=str(tmp_path / "half.parquet"))
    info = export(tiny_store, tmp_path / "object", format="tfrecord", subset=half)
    names = tuple(sorted(path.name for path in (tmp_path / "verb").iterdir()))
    assert contents(tmp_path / "verb", names) == contents(tmp_path / "str", names)
    assert contents(tmp_path / "verb", names) == contents(tmp_path / "object", names)
    assert json.loads((tmp_path / "object/export.json").read_text()) == info
    export(tiny_store, tmp_path / "val", format="npy", split="val", subset=np.array([5, 2]))
    assert np.load(tmp_path / "val/ids.npy").tolist() == [5, 2]
    export(tiny_store, tmp_path / "all", format="npy")
    assert np.load(tmp_path / "all/ids.npy").tolist() == list(range(96))
    with pytest.raises(ValueError, match="exports are never overwritten"):
        export(tiny_store, tmp_path / "all", format="npy")


def test_what_is_exported_belongs_to_the_split_asked_for(tiny_store: Store, half: Subset, tmp_path: Path) -> None:
    val = select(tiny_store, "random", 0.5, split="val")
    with pytest.raises(ValueError, match="this subset is one of the split 'train', not 'val'"):
        export(tiny_store, tmp_path / "out", format="npy", subset=half, split="val")
    with pytest.raises(ValueError, match="this subset is one of the split 'val', not 'train'"):
        export(tiny_store, tmp_path / "out", format="npy", subset=val, split="train")
    assert not (tmp_path / "out").exists()
    info = export(tiny_store, tmp_path / "out", format="npy", subset=val)  # no split named: its own
    assert info["split"] == "val"
    assert np.load(tmp_path / "out/ids.npy").tolist() == val.ids.tolist()
    assert info["subset"] == val.describe()
