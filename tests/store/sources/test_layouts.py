"""Which folder or file is which split: the usual names, what was said, and what is refused for being ambiguous."""

import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

import prunekd
from prunekd.cli import main
from prunekd.store.sources import Layout, open_source, reopen_source
from prunekd.store.sources.source import Source
from store.datasets import add_bytes, photographs
from support import write_arrays

GOOD = photographs(1)[0][1]


def tree(root: Path, *folders: str, count: int = 3) -> Path:
    """An image folder with `count` images in each of the folders."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            (root / folder / f"{k}.jpg").write_bytes(GOOD)
    return root


def splits(source: Source) -> dict[str, int]:
    return {split: len(source.labels(split)) for split in source.splits}


@pytest.mark.parametrize("train", ["train", "training", "Train"])
@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val", "test"])
def test_usual_names_are_splits(tmp_path: Path, train: str, val: str) -> None:
    tree(tmp_path / "in", f"{train}/a", f"{train}/b", f"{val}/a")
    source = open_source(tmp_path / "in")
    assert source.classes == ("a", "b")
    assert splits(source) == {"train": 6, "val": 3}
    assert reopen_source(source.describe()).describe() == source.describe()


def test_test_is_left_out_beside_val_and_where_something_is_held_out_and_said(tmp_path: Path) -> None:
    tree(tmp_path / "in", "train/a", "train/b", "test/a", count=4)
    held = open_source(tmp_path / "in", val_fraction=0.25)
    assert splits(held) == {"train": 6, "val": 2}
    assert held.ignored == {"folder test beside train": 1}
    tree(tmp_path / "in", "valid/b")
    source = open_source(tmp_path / "in")
    assert splits(source) == {"train": 8, "val": 3}
    assert source.ignored == {"folder test beside train": 1}
    flat = tree(tmp_path / "flat", "train/a", "train/b", "test")
    assert open_source(flat).splits == ("train",)


def test_a_user_says_what_the_names_do_not(tmp_path: Path) -> None:
    tree(tmp_path / "in", "first/a", "first/b", "second/a", "test/a", "train/x", "train/y", "val/x")
    source = open_source(tmp_path / "in", layout=Layout(train_split="first", val_split="second"))
    assert source.classes == ("a", "b")
    assert splits(source) == {"train": 6, "val": 3}
    assert reopen_source(source.describe()).describe() == source.describe()
    assert open_source(tmp_path / "in", layout=Layout(val_split="none")).splits == ("train",)
    every = open_source(tmp_path / "in", layout=Layout(train_split="."))
    assert every.classes == ("first", "second", "test", "train", "val")
    assert reopen_source(every.describe()).describe() == every.describe()


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train/a", "training/a"], "train and training; choose one with --train-split"),
        (["train/a", "val/a", "valid/a"], "val and valid; choose one with --val-split"),
        (["valid/a"], "a folder valid but none named train.*--train-split"),
        (["cat", "dog", "test"], "a folder test but none named train.*--train-split . if every folder is a class"),
        (["bus", "car", "train"], r"train holds no class folders.*--train-split \. if every folder is a class"),
        (["train_images/a", "test_images/a"], "look like splits.*--train-split NAME"),
        (["train2017", "val2017"], "look like splits"),
        (["in/train/a", "in/val/a"], "in would be a class, but holds the folders train and val; .*convert .*/in/in"),
        (["cat/training", "cat/test", "dog/training", "dog/test"], "cat would be a class"),
        (["train/a", "train/b", "val/c"], "'c', which train lacks.*--val-split none"),
    ],
)
def test_what_is_ambiguous_is_refused_with_the_option_that_settles_it(
    tmp_path: Path, folders: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(tree(tmp_path / "in", *folders))


def test_every_ambiguous_folder_is_a_class_where_that_is_said(tmp_path: Path) -> None:
    for number, names in enumerate((["cat", "test"], ["bus", "train"], ["train_images", "test_images"])):
        root = tree(tmp_path / str(number), *names)
        assert open_source(root, layout=Layout(train_split=".")).classes == tuple(sorted(names))
    below = tree(tmp_path / "below", "cat/train", "cat/test", "dog")
    assert splits(open_source(below, layout=Layout(train_split="."))) == {"train": 9}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"train_split": "nowhere"}, "--train-split is 'nowhere', but .* has no such folder, only train, val"),
        ({"val_split": "../x"}, "--val-split is '../x'; give the name of a folder"),
        ({"val_split": "."}, "--val-split is '.', the training split"),
        ({"train_split": ".", "val_split": "val"}, "--val-fraction"),
    ],
)
def test_what_is_said_wrong_is_named(tmp_path: Path, said: dict[str, str], message: str) -> None:
    tree(tmp_path / "in", "train/a", "train/b", "val/a")
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "in", layout=Layout(**said))


def shard(path: Path, *labels: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for k, label in enumerate(labels):
            add_bytes(tar, f"{path.stem}-{k}.jpg", GOOD)
            add_bytes(tar, f"{path.stem}-{k}.cls", label)


def test_shards_follow_the_same_names_and_options(tmp_path: Path) -> None:
    for name in ("training-0", "test-0", "odd-0"):
        shard(tmp_path / "in" / f"{name}.tar", b"0", b"1")
    guessed = open_source(tmp_path / "in")
    assert splits(guessed) == {"train": 2, "val": 2}
    assert guessed.notes == ("nothing is named val, so the validation split is test; --val-split none leaves it out",)
    assert open_source(tmp_path / "in", layout=Layout(val_split="none")).splits == ("train",)
    said = open_source(tmp_path / "in", layout=Layout(train_split="odd", val_split="training"))
    assert said.keys("train") == ["odd-0-0.jpg", "odd-0-1.jpg"]
    assert said.keys("val") == ["training-0-0.jpg", "training-0-1.jpg"]
    assert said.ignored == {"file of test beside val": 1}
    assert reopen_source(said.describe()).describe() == said.describe()
    assert splits(open_source(tmp_path / "in", layout=Layout(train_split="."))) == {"train": 6}
    with pytest.raises(ValueError, match="--val-split is 'nowhere', but no file"):
        open_source(tmp_path / "in", layout=Layout(val_split="nowhere"))


def test_fixed_layouts_take_no_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--val-split is for imagefolder, webdataset and parquet"):
        open_source(write_arrays(tmp_path / "a.npz"), layout=Layout(val_split="none"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((b"0", b"1", b"-1"), "labels reach from -1: 1 of the 3 labels of train are below 0"),
        ((b"0", b"cat", b"1"), r"2 labels are numbers \(the first 0\), 1 are not \(the first 'cat'\).*--label-names"),
    ],
)
def test_one_odd_label_does_not_renumber_the_others(tmp_path: Path, labels: tuple[bytes, ...], message: str) -> None:
    shard(tmp_path / "a.tar", *labels)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "a.tar")


def test_numbers_are_names_where_that_is_said(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", b"10", b"plus", b"2")
    source = open_source(tmp_path / "a.tar", layout=Layout(label_names=True))
    assert source.classes == ("10", "2", "plus")
    assert sorted(source.labels("train").tolist()) == [0, 1, 2]
    assert reopen_source(source.describe()).describe() == source.describe()


def test_what_was_found_is_said_before_anything_is_converted(tmp_path: Path, told: list[str]) -> None:
    tree(tmp_path / "in", "training/a", "test/a")
    tree(tmp_path / "in", "training/b", "notes", count=2)
    store = prunekd.convert(tmp_path / "in", tmp_path / "store")
    root = tmp_path / "in"
    assert told == [
        f"{root} is read as imagefolder (a folder); --source says otherwise",
        f"train: 5 images, 2 classes, 2 to 3 per class ({root}/training)",
        f"val: 3 images, 2 classes, 1 of them empty, 0 to 3 per class ({root}/test)",
        "nothing is named val, so the validation split is test; --val-split none leaves it out",
        "ignored: 1 x folder notes beside training",
    ]
    assert {name: len(split) for name, split in store.splits.items()} == {"train": 5, "val": 3}


@pytest.mark.parametrize("names", [["photos"], ["train/a"]])
def test_one_class_is_refused(tmp_path: Path, names: list[str]) -> None:
    tree(tmp_path / "in", *names)
    result = CliRunner().invoke(main, ["convert", str(tmp_path / "in"), str(tmp_path / "store")])
    assert result.exit_code == 2
    assert f"images of one class alone, {names[0][-1 if '/' in names[0] else 0 :]!r}" in result.stderr
    assert not (tmp_path / "store").exists()


def test_folders_that_cannot_be_listed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path / "in", "train/a", "train/b")
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("b"))  # root may read everything
    with pytest.raises(OSError, match=r"the folder .*train/b cannot be listed .*make it readable"):
        open_source(tmp_path / "in")


def test_options_reach_the_source(tmp_path: Path) -> None:
    tree(tmp_path / "in", "first/a", "first/b", "second/a")
    words = [
        "convert",
        str(tmp_path / "in"),
        str(tmp_path / "store"),
        "--train-split",
        "first",
        "--val-split",
        "second",
    ]
    assert CliRunner().invoke(main, words).exit_code == 0
    store = prunekd.open_store(tmp_path / "store")
    assert store.source["layout"] == {"train_split": "first", "val_split": "second"}
    assert len(store.split("val")) == 3
