"""`prunekd inspect` through click's runner, on every kind of thing."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from prunekd.cli import main
from prunekd.common.files import write_json
from prunekd.pruning import select, write_subset
from prunekd.pruning.parquet import made_for
from prunekd.pruning.scores import Scores, write_scores
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from support import write_arrays


def inspect(*words):
    return CliRunner().invoke(main, ["inspect", *(str(word) for word in words)])


@pytest.fixture
def files(tiny_store, tmp_path):
    """A scores file and the hardest quarter by it."""
    split = tiny_store.split("train")
    values = np.linspace(0, 1, len(split)).astype(np.float32)
    scores = Scores(
        ids=split.ids,
        labels=split.labels,
        columns={"el2n": values, "teacher_std": 1 + values},
        definitions={"el2n": "el2n@1", "teacher_std": "teacher_std@1"},
        hard_ends={"el2n": "high"},
        class_std=np.array([1.0, 2.0, 3.0, np.nan]),
        provenance={**made_for(tiny_store, "train"), "teacher": {"model": "resnet8"}, "seed": 5},
    )
    write_scores(tmp_path / "scores.parquet", scores)
    write_subset(tmp_path / "subset.parquet", select(tiny_store, "hardest", 0.25, scores=scores))
    return tmp_path / "scores.parquet", tmp_path / "subset.parquet"


def test_a_store_shows_its_classes_and_splits(tiny_store):
    result = inspect(tiny_store.path)
    assert result.exit_code == 0, result.stderr
    for text in ("4: class0, class1, class2, class3", tiny_store.fingerprint, "train", "96", "24 to 24", "12"):
        assert text in result.stdout
    facts = json.loads(inspect(tiny_store.path, "--json").stdout)
    assert facts["kind"] == "store"
    assert facts["splits"]["train"]["samples"] == 96
    assert facts["splits"]["train"]["payload_bytes"] == 96 * 12 * 12 * 3
    assert facts["splits"]["train"]["raw"] == 96
    assert facts["splits"]["val"]["class_sizes"] == [8] * 4


def test_scores_show_their_distribution(files):
    scores, _ = files
    result = inspect(scores)
    assert result.exit_code == 0, result.stderr
    for text in ("el2n@1", "high", "resnet8", "teacher_std@1", "class_std"):
        assert text in result.stdout
    facts = json.loads(inspect(scores, "--json").stdout)
    assert facts["samples"] == 96
    assert facts["columns"]["el2n"]["median"] == pytest.approx(0.5)
    assert facts["columns"]["teacher_std"]["hard_end"] is None
    assert facts["class_std"] == {
        "min": 1.0, "q25": 1.5, "median": 2.0, "q75": 2.5, "max": 3.0, "mean": 2.0, "not_finite": 1,
    }  # fmt: skip


def test_a_subset_shows_what_it_keeps(tiny_store, files):
    scores, subset = files
    result = inspect(subset)
    assert result.exit_code == 0, result.stderr
    for text in ("24 of 96 (25.00%", "hardest", "el2n@1", "balance none"):
        assert text in result.stdout
    named = inspect(subset, "--store", tiny_store.path, "--scores", scores)
    assert "class3" in named.stdout
    assert "Mean scores" in named.stdout
    facts = json.loads(inspect(subset, "--scores", scores, "--json").stdout)
    assert facts["kept"] == 24
    kept = np.linspace(0, 1, 96)[72:].mean()
    assert facts["mean_scores"]["el2n"]["kept"] == pytest.approx(kept, rel=1e-5)
    assert facts["mean_scores"]["el2n"]["dropped"] == pytest.approx((48 - 24 * kept) / 72, rel=1e-5)


def test_a_contact_sheet_shows_kept_beside_dropped(tiny_store, files, tmp_path):
    scores, subset = files
    sheet, again, plain = (tmp_path / name for name in ("sheet.png", "again.png", "plain.png"))
    common = [subset, "--store", tiny_store.path]
    result = inspect(*common, "--scores", scores, "--out", sheet)
    assert result.exit_code == 0, result.stderr
    assert inspect(*common, "--scores", scores, "--out", again).exit_code == 0
    assert inspect(*common, "--out", plain).exit_code == 0
    assert sheet.read_bytes() == again.read_bytes()
    assert sheet.read_bytes() != plain.read_bytes()
    pixels = np.asarray(Image.open(sheet).convert("RGB")).astype(int)
    # Half of the kept block stays empty (24 of 48 places), while the dropped one is full.
    left, right = np.split(pixels, 2, axis=1)
    filled = [(np.abs(side - 255).sum(axis=2) > 0).mean() for side in (left, right)]
    assert filled[0] < 0.65 * filled[1]
    # The first kept thumbnail is the easiest kept sample, enlarged eight times.
    split = tiny_store.split("train")
    with split.payloads() as payloads:
        image = np.frombuffer(payloads.read(int(split.rows(split.ids[72:73])[0])), np.uint8).reshape(12, 12, 3)
    np.testing.assert_array_equal(pixels[40:136, 8:104], image.repeat(8, axis=0).repeat(8, axis=1))


def test_a_contact_sheet_of_everything_has_nothing_dropped(tiny_store, tmp_path):
    write_subset(tmp_path / "all.parquet", select(tiny_store, "random", 1.0))
    sheet = tmp_path / "all.png"
    assert inspect(tmp_path / "all.parquet", "--store", tiny_store.path, "--out", sheet).exit_code == 0
    assert Image.open(sheet).size[0] > 1000


def make_run(folder, finished):
    write_json(
        folder / "run.json", {"format": "prunekd-run", "version": 1, "alpha": 0.5, "recipe": {"optimizer": {"lr": 0.1}}}
    )
    records = [
        {"kind": "train", "step": 5, "loss": 2.0},
        {"kind": "epoch", "step": 10, "epoch": 1, "loss": 1.5, "val_top1": 0.25},
        {"kind": "epoch", "step": 20, "epoch": 2, "loss": 1.0, "val_top1": 0.75},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + '{"kind": "ep')
    (folder / "checkpoints" / "step-20").mkdir(parents=True)
    (folder / "checkpoints" / "step-9").mkdir()
    if finished:
        ledger = {"wall_seconds": 12.5, "seconds": {"step": 8.0, "other": 4.5}, "counters": {}}
        write_json(folder / "result.json", {"name": "r", "top1": 0.75, "epoch_seconds": [1, 2], "ledger": ledger})


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_shows_where_it_stands(tmp_path, finished):
    make_run(tmp_path / "run", finished)
    result = inspect(tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "step-9, step-20" in result.stdout
    assert "optimizer.lr" in result.stdout
    assert ("Not finished" in result.stdout) != finished
    assert ("Ledger" in result.stdout) == finished
    assert ("12.50" in result.stdout) == finished
    facts = json.loads(inspect(tmp_path / "run", "--json").stdout)
    assert facts["finished"] == finished
    assert [record["val_top1"] for record in facts["epochs"]] == [0.25, 0.75]


def test_other_things_are_told_what_to_do(tiny_store, files, tmp_path):
    scores, subset = files
    (tmp_path / "sweep").mkdir()
    write_json(tmp_path / "sweep" / "sweep.json", {})
    (tmp_path / "text.txt").write_text("hello")
    cases = [
        ([tmp_path / "nowhere"], "does not exist; inspect takes a store"),
        ([tmp_path], "neither store.json nor run.json"),
        ([tmp_path / "sweep"], "prunekd report"),
        ([tmp_path / "text.txt"], "not a Parquet file"),
        ([tiny_store.path / "train.index.parquet"], f"prunekd inspect {tiny_store.path}"),
        ([scores, "--out", tmp_path / "x.png"], "are for subsets"),
        ([subset, "--out", tmp_path / "x.png"], "--store STORE"),
    ]
    for words, message in cases:
        result = inspect(*words)
        assert result.exit_code == 2, words
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_subset_with_another_store_or_its_scores_is_refused(tiny_store, files, tmp_path):
    _, subset = files
    other = convert(open_source(write_arrays(tmp_path / "o.npz", seed=1)), tmp_path / "other", ConvertSettings())
    split = other.split("train")
    theirs = Scores(
        ids=split.ids,
        labels=split.labels,
        columns={"el2n": split.ids.astype(np.float32)},
        definitions={"el2n": "el2n@1"},
        hard_ends={"el2n": "high"},
        class_std=np.ones(4),
        provenance=made_for(other, "train"),
    )
    write_scores(tmp_path / "theirs.parquet", theirs)
    for words in (["--store", other.path], ["--scores", tmp_path / "theirs.parquet"]):
        result = inspect(subset, *words)
        assert result.exit_code == 2
        assert str(tiny_store.path) in result.stderr
        assert str(other.path) in result.stderr


@pytest.mark.parametrize("columns", [40, 60, 79])
def test_narrow_terminals_get_rows_one_below_the_other(tiny_store, monkeypatch, columns):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    result = inspect(tiny_store.path)
    assert result.exit_code == 0, result.stderr
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in result.stdout.splitlines()]
    assert all(len(line) <= columns for line in lines)
    for name, value in {
        "per class": "24 to 24",
        "samples": "96",
        "width (median)": "12",
        "payload": "40.5 KiB",
    }.items():
        assert any(re.fullmatch(rf"{re.escape(name)} +{value}", line) for line in lines), name


def test_wide_terminals_keep_the_table(tiny_store, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "130")
    assert "width (median)" in next(line for line in inspect(tiny_store.path).stdout.splitlines() if "samples" in line)
