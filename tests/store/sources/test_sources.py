"""Sources: what is listed, in which order, and what is refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder

from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source, reopen_source
from prunekd.store.sources.hold_out import hold_out
from support import write_arrays


def image(path: Path, shade: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 8), (shade, 10, 200)).save(path)
    return path


def test_images_are_numbered_as_torchvision_numbers_them(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.PNG", "b/a-1/x.jpg", "b/a/y.jpg", "b/a/b/z.jpeg", "B/q.bmp", "a é/1.webp"):
        image(tmp_path / name)
    source = open_source(tmp_path)
    theirs = TorchvisionFolder(str(tmp_path))
    assert list(source.classes) == theirs.classes
    assert [str(tmp_path / key) for key in source.keys("train")] == [path for path, _ in theirs.samples]
    assert source.labels("train").tolist() == theirs.targets


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    image(tmp_path / "train/a/1.jpg")
    (tmp_path / "train/empty").mkdir()
    for name in ("a/notes.txt", "a/more.txt", "a/.hidden.jpg", "a/README", "stray.jpg"):
        (tmp_path / "train" / name).write_text("x")
    source = open_source(tmp_path)
    assert source.classes == ("a", "empty")
    assert len(source.keys("train")) == 1
    assert source.ignored == {".txt": 2, "hidden": 1, "no extension": 1, "outside a class folder": 1}


def test_links_to_files_and_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    real = image(tmp_path / "elsewhere/deep/1.jpg")
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "data/a/link.jpg").symlink_to(real)
    (tmp_path / "data/a/folder").symlink_to(real.parent)
    assert open_source(tmp_path / "data").keys("train") == ["a/link.jpg", "a/folder/1.jpg"]
    (tmp_path / "data/a/circle").symlink_to(tmp_path / "data/a")
    with pytest.raises(ValueError, match="circle"):
        open_source(tmp_path / "data")


def test_inputs_that_cannot_be_opened_are_quarantined_not_lost(tmp_path: Path) -> None:
    image(tmp_path / "data/a/1.jpg")
    (tmp_path / "data/a/dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "data/a/pipe.jpg")
    (tmp_path / "data/a" / os.fsdecode(b"latin\xe9.jpg")).write_bytes((tmp_path / "data/a/1.jpg").read_bytes())
    store = convert(open_source(tmp_path / "data"), tmp_path / "store", ConvertSettings(max_quarantined=3))
    reasons = {entry["key"]: entry["reason"] for entry in store.quarantined}
    assert set(reasons) == {"a/dangling.jpg", "a/pipe.jpg", "a/latin\\udce9.jpg"}
    assert "No such file" in reasons["a/dangling.jpg"]
    assert "regular" in reasons["a/pipe.jpg"]
    assert "UTF-8" in reasons["a/latin\\udce9.jpg"]
    assert store.counts["train"]["quarantined"] == 3
    assert len(store.split("train")) == 1


def test_a_validation_class_that_train_lacks_is_named(tmp_path: Path) -> None:
    image(tmp_path / "train/a/1.jpg")
    image(tmp_path / "val/b/1.jpg")
    with pytest.raises(ValueError, match="'b'"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["x.jpg"], "no class folders"),
        (["val/a/x.jpg"], "none named train"),
        (["train/a/x.txt"], "no images"),
        (["train/a/x.jpg", "val/a/x.txt"], "val holds no images"),
    ],
)
def test_malformed_folders_are_named(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path)


def test_reopening_finds_the_same_inputs_or_says_why_not(tmp_path: Path) -> None:
    for k in range(8):
        image(tmp_path / f"data/a/{k}.jpg")
    source = open_source(tmp_path / "data", val_fraction=0.25)
    description = source.describe()
    again = reopen_source(description)
    assert again.splits == ("train", "val")
    assert again.keys("val") == source.keys("val")
    assert again.read("val", 0) == source.read("val", 0)
    image(tmp_path / "data/a/new.jpg")
    with pytest.raises(ValueError, match="no longer lists"):
        reopen_source(description)
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="no longer there"):
        reopen_source(description)


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 0.9])
def test_held_out_samples_are_a_share_of_each_class_and_stay_put(tmp_path: Path, fraction: float) -> None:
    for label, count in (("a", 1), ("b", 2), ("c", 20)):
        for k in range(count):
            image(tmp_path / f"data/{label}/{k:02}.jpg")
    source = open_source(tmp_path / "data", val_fraction=fraction)
    counts = np.bincount(source.labels("val"), minlength=3).tolist()
    assert counts == [0, 1, max(1, round(20 * fraction))]
    together = sorted([*source.keys("train"), *source.keys("val")])
    assert together == open_source(tmp_path / "data").keys("train")
    assert source.keys("val") == open_source(tmp_path / "data", val_fraction=fraction).keys("val")
    for split in source.splits:
        for row, (key, label) in enumerate(zip(source.keys(split), source.labels(split), strict=True)):
            assert source.classes[label] == key[0]
            assert source.read(split, row) == (tmp_path / "data" / key).read_bytes()


def test_holding_out_where_it_makes_no_sense_is_refused(tmp_path: Path) -> None:
    source = open_source(write_arrays(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match="already"):
        hold_out(source, 0.1)
    with pytest.raises(ValueError, match=r"0\.95"):
        hold_out(source, 0.95)


def test_arrays_give_back_their_images_in_this_and_another_process(tmp_path: Path) -> None:
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=[[2], [0], [1]], test_images=images[..., None],
             test_labels=[0, 0, 2], extra=1)  # fmt: skip
    source = open_source(tmp_path / "a.npz")
    assert source.splits == ("train", "val")
    assert source.classes == ("0", "1", "2")
    assert source.ignored == {"array extra": 1}
    for opened in (source, pickle.loads(pickle.dumps(source))):  # noqa: S301 - a worker process gets it so
        for split in source.splits:
            assert np.array_equal(opened.read(split, 1), images[1][..., None])
    assert len(set(source.keys("train"))) == 3


def objects() -> np.ndarray:
    return np.array([{}, {}], dtype=object)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((2, 3, 8, 8), np.uint8)}, "channels to the end"),
        ({"train_images": np.zeros((2, 8, 8, 3), np.float32)}, "uint8"),
        ({"train_images": objects()}, "Object arrays cannot be loaded|uint8"),
        ({"train_labels": objects()}, "cannot be loaded"),
        ({"train_labels": np.array([0.5, 1])}, "integers"),
        ({"train_labels": np.array([-1, 0])}, "start at 0"),
        ({"train_labels": np.array([0, 1, 1])}, "3 labels"),
        ({"classes": np.array(["only"])}, "label 1"),
        ({"classes": np.array(["same", "same"])}, "repeat"),
        ({"val_images": np.zeros((1, 8, 8), np.uint8), "val_labels": np.array([2])}, "class 2"),
        ({"val_images": np.zeros((1, 8, 8), np.uint8)}, "val_labels"),
    ],
)
def test_malformed_arrays_are_named(tmp_path: Path, change: dict[str, np.ndarray], message: str) -> None:
    arrays = {"train_images": np.zeros((2, 8, 8, 3), np.uint8), "train_labels": np.array([0, 1]), **change}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        open_source(tmp_path / "a.npz")
    assert "a.npz" in str(caught.value)


def test_what_is_no_npz_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ValueError, match=r"a\.npz"):
        open_source(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="does not exist"):
        open_source(tmp_path / "b.npz")
