"""Everything that prunekd 0.1.0 wrote stays readable. `make_v0_1_0.py` made the files and says what they are.

The folders that they name, all in /tmp/prunekd-0.1.0, do not exist here: the files were moved to another place.
"""

import io
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from compat import tiny_model
from prunekd.cli import main
from prunekd.distill import CachedTeacher
from prunekd.input import ViewSettings, eval_plan, open_reader
from prunekd.models import load_trained
from prunekd.pruning import Subset, read_subset
from prunekd.pruning.scores import read_scores
from prunekd.reporting.results import read_sweep
from prunekd.store import Store, open_store

ARCHIVE = Path(__file__).with_name("v0_1_0.tar.xz")
STORES = ("store", "photo-store", "small-store")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert tiny_model.NAME == "tiny_model"  # its import has told timm the name that the runs recorded
    folder = tmp_path_factory.mktemp("v0_1_0")
    shutil.unpack_archive(ARCHIVE, folder)
    return folder


@pytest.fixture
def home(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files, also as the working directory: 0.1.0 was given relative paths."""
    monkeypatch.chdir(unpacked)
    return unpacked


@pytest.fixture
def expected(home: Path) -> dict[str, Any]:
    """What 0.1.0 read in its own files."""
    found = json.loads((home / "expected.json").read_text())
    assert found["version"] == "0.1.0"
    return found


def run(*words: object) -> None:
    main([str(word) for word in words], standalone_mode=False)


def recipe_of(folder: str) -> Path:
    """The recipe that a run recorded, as a file: the recipe `demo` may change."""
    path = Path(f"{folder}.yaml")
    path.write_text(json.dumps(json.loads(Path(folder, "run.json").read_text())["recipe"]))  # JSON is YAML
    return path


def assert_same_weights(one: Path, other: Path) -> None:
    """Equal but for the rounding of another processor's kernels."""
    ours, theirs = load_file(one), load_file(other)
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        torch.testing.assert_close(
            ours[name], values, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name} {text}"
        )


def read_images(store: Store, split: str, size: int) -> dict[int, torch.Tensor]:
    """Images uint8 (3, size, size) by sample id, as the default reader gives them for an evaluation."""
    plan = eval_plan(store.split(split), batch_size=5, view=ViewSettings(kind="center", size=size, crop_ratio=1.0))
    with open_reader("native", store, split, workers=1) as reader:
        return {int(i): image.clone() for b in reader.epoch(plan) for i, image in zip(b.ids, b.images, strict=True)}


@pytest.mark.parametrize("name", STORES)
def test_a_store_opens_with_every_sample(home: Path, expected: dict[str, Any], name: str) -> None:
    store = open_store(name)
    assert store.fingerprint == expected["fingerprints"][name]
    assert set(store.splits) == set(expected["payloads"][name])
    for split_name, samples in expected["payloads"][name].items():
        split = store.split(split_name)
        with split.payloads() as payloads:
            found = [
                [int(split.ids[row]), int(split.labels[row]), zlib.crc32(payloads.read(row))]
                for row in range(len(split))
            ]
        assert found == samples
        assert split.crc32.tolist() == [crc for _, _, crc in samples]


def test_raw_pixels_reach_the_reader(home: Path) -> None:
    store = open_store("store")
    split = store.split("val")
    read = read_images(store, "val", 12)
    source = np.load("digits.npz")
    assert sorted(read) == sorted(split.ids.tolist())
    with split.payloads() as payloads:
        for i, row in zip(split.ids.tolist(), split.rows(split.ids).tolist(), strict=True):
            stored = np.frombuffer(payloads.read(row), np.uint8).reshape(12, 12, 3)
            np.testing.assert_array_equal(read[i].permute(1, 2, 0).numpy(), stored)
            assert (source["val_images"] == stored).all(axis=(1, 2, 3)).any()


def test_jpeg_files_are_those_of_the_source_or_shrunk(home: Path) -> None:
    store = open_store("photo-store")
    for split in store.splits.values():
        with split.payloads() as payloads:
            for row, key in enumerate(split.keys()):
                source, stored = (Path("photos") / key).read_bytes(), payloads.read(row)
                size = Image.open(io.BytesIO(stored)).size
                assert size == (split.widths[row], split.heights[row])
                assert store.classes[split.labels[row]] == key.split("/")[0]
                if max(Image.open(io.BytesIO(source)).size) <= 48:
                    assert stored == source
                else:
                    assert max(size) == 48
    images = read_images(store, "train", 16)
    assert len(images) == 6
    assert all(image.float().std() > 10 for image in images.values())


def test_scores_hold_the_same_values(home: Path, expected: dict[str, Any]) -> None:
    scores = read_scores(Path("scores.parquet"))
    scores.check(open_store("store"))
    scores.check(open_store("small-store"))  # a part of it
    assert scores.definitions == expected["definitions"]
    assert set(scores.columns) == set(expected["scores"])
    for name, values in expected["scores"].items():
        assert scores[name].astype(float).tolist() == values
    with pytest.raises(ValueError, match=r"made for /tmp/prunekd-0\.1\.0/store .4 classes"):
        scores.check(open_store("photo-store"))


@pytest.mark.parametrize("name", ["medium", "random"])
def test_subsets_hold_the_same_ids(home: Path, expected: dict[str, Any], name: str) -> None:
    subset = read_subset(Path(f"{name}.parquet"))
    subset.check(open_store("store"))
    assert subset.ids.tolist() == expected["subsets"][name]["ids"]
    assert subset.info == expected["subsets"][name]["info"]
    assert subset.info["store"]["path"] == "/tmp/prunekd-0.1.0/store"


def test_a_compacted_store_lies_in_the_order_of_its_subset(home: Path) -> None:
    small, subset = open_store("small-store"), read_subset(Path("medium.parquet"))
    assert open_store("store").fingerprint in small.lineage
    assert subset.rows(small).tolist() == list(range(48))
    assert Subset.of_ids(small, subset.ids[::-1]).rows(small).tolist() == list(range(48))[::-1]


def test_selecting_anew_gives_the_same_subsets(home: Path, expected: dict[str, Any]) -> None:
    run("select", "store", "--policy", "medium", "--scores", "scores.parquet", "--keep", 0.5, "--out", "again.parquet")
    run("select", "store", "--policy", "random", "--seed", 3, "--keep", 0.25, "--out", "chance.parquet")
    assert read_subset(Path("again.parquet")).ids.tolist() == expected["subsets"]["medium"]["ids"]
    assert read_subset(Path("chance.parquet")).ids.tolist() == expected["subsets"]["random"]["ids"]


def test_a_finished_run_is_a_teacher(home: Path) -> None:
    model, card = load_trained(Path("teacher/model.safetensors"))
    assert (card.model, card.classes, card.size) == ("tiny_model", ("amber", "blue", "coral", "green"), 12)
    assert not model.training
    words = ("--teacher-compile", "off", "--device", "cpu")
    run("score", "store", "--teacher", "teacher", *words, "--out", "anew.parquet")
    anew, before = read_scores(Path("anew.parquet")), read_scores(Path("scores.parquet"))
    for name in before.columns:
        np.testing.assert_allclose(anew[name], before[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["labels-full", "labels-top"])
def test_soft_labels_are_looked_up(home: Path, name: str) -> None:
    store = open_store("store")
    cached = CachedTeacher.open(Path(name), store)
    assert (cached.views, cached.num_classes, len(cached.ids)) == (2, 4, 96)
    ids = torch.tensor([95, 0, 40])
    rows = np.searchsorted(np.load(f"{name}/sample_ids.npy"), ids.numpy())
    for view in range(2):
        labels = cached.lookup(ids, view)
        np.testing.assert_array_equal(labels.logits.numpy(), np.load(f"{name}/logits.npy")[view, rows])
        if name == "labels-top":
            assert labels.ids is not None
            np.testing.assert_array_equal(labels.ids.numpy(), np.load(f"{name}/topk_ids.npy")[view, rows])
            full = np.load("labels-full/logits.npy")[view, rows].astype(np.float64)
            np.testing.assert_array_equal(labels.ids.numpy(), np.argsort(-full, axis=1, kind="stable")[:, :2])
            np.testing.assert_allclose(labels.std, full.std(axis=1, ddof=1), rtol=1e-2)


@pytest.mark.parametrize("labels", ["labels-full", "labels-top"])
def test_a_run_takes_an_old_subset_and_old_labels(home: Path, labels: str) -> None:
    out = Path(f"with-{labels}")
    words = ("--recipe", recipe_of("teacher"), "--set", "epochs=2", "--device", "cpu")
    run("train", "store", *words, "--subset", "random.parquet", "--labels", labels, "--out", out)
    result = json.loads((out / "result.json").read_text())
    assert (result["samples_kept"], result["samples_total"], result["policy"]) == (24, 96, "random")


def test_a_stopped_run_goes_on_to_the_same_end(home: Path, told: list[str]) -> None:
    """Its twin run/ was never stopped."""
    assert [step.name for step in Path("stopped/checkpoints").iterdir()] == ["step-00000005"]
    before = json.loads(Path("stopped/run.json").read_text())
    run(
        "train", "store", "--recipe", recipe_of("stopped"), "--subset", "medium.parquet", "--teacher", "teacher",
        "--teacher-precision", "fp32", "--teacher-compile", "off", "--reshape", "scores.parquet", "--device", "cpu",
        "--resume", "auto", "--out", "stopped",
    )  # fmt: skip
    assert any("resumed from stopped/checkpoints/step-00000005: epoch 1, step 2" in line for line in told)
    assert_same_weights(Path("stopped/model.safetensors"), Path("run/model.safetensors"))
    ours, theirs = (json.loads(Path(name, "result.json").read_text()) for name in ("stopped", "run"))
    for key in ("arm", "policy", "keep", "epochs", "samples_seen", "samples_kept", "val_samples", "alpha"):
        assert ours[key] == theirs[key]
    assert len(ours["epoch_seconds"]) == 4
    tracked, twin = (read_scores(Path(name, "scores.parquet")) for name in ("stopped", "run"))
    assert tracked.definitions == twin.definitions
    for name in twin.columns:
        np.testing.assert_allclose(tracked[name], twin[name], rtol=1e-2, atol=1e-3)
    assert json.loads(Path("stopped/run.json").read_text()) == before


def test_a_sweep_is_reported(home: Path) -> None:
    sweep = read_sweep(Path("sweep"))
    assert (len(sweep.runs), sweep.missing, sweep.unlisted) == (4, (), ())
    assert [(r.arm, r.policy, r.keep, r.samples_kept) for r in sweep.runs] == [
        ("plain", "all", 1.0, 96), ("kd", "all", 1.0, 96), ("plain", "random", 0.5, 48), ("kd", "random", 0.5, 48),
    ]  # fmt: skip
    for each in sweep.runs:
        result = json.loads(Path("sweep/runs", each.name, "result.json").read_text())
        assert (each.top1, each.train_seconds) == (result["top1"], result["train_seconds"])
    run("report", "sweep", "--out", "report.html")
    page = Path("report.html").read_text()
    assert "Plain" in page
    assert "KD" in page
    assert (home / "report.csv").read_text().count("\n") >= 4


def test_a_source_that_is_gone_is_named(home: Path) -> None:
    """Only what needs the source's own files asks for them."""
    store = open_store("photo-store")
    with pytest.raises(ValueError, match=r"/tmp/prunekd-0\.1\.0/photos"):
        open_reader("torch", store, "train")
