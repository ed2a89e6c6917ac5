"""`prunekd compact` through click's runner, and training on what it makes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from prunekd.cli import main
from prunekd.pruning import read_subset
from prunekd.store import Store, open_store


def prunekd(*words: object) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def half(tiny_store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "half.parquet"
    assert prunekd("select", tiny_store.path, "--policy", "random", "--keep", 0.5, "--out", path).exit_code == 0
    return path


def test_a_subset_becomes_a_store(tiny_store: Store, half: Path, tmp_path: Path) -> None:
    result = prunekd("compact", tiny_store.path, "--subset", half, "--out", tmp_path / "made", "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["samples"], summary["of"], summary["bytes"]) == (48, 96, 48 * 432)
    made = open_store(tmp_path / "made")
    assert made.split("train").ids.tolist() == read_subset(half).ids.tolist()
    assert made.compacted is not None
    assert made.compacted["ranking"]["policy"] == "random"
    assert "made" in prunekd("inspect", tmp_path / "made").stdout


def test_a_smaller_fraction_is_what_select_would_keep(tiny_store: Store, half: Path, tmp_path: Path) -> None:
    fifth = tmp_path / "fifth.parquet"
    assert prunekd("select", tiny_store.path, "--policy", "random", "--keep", 0.2, "--out", fifth).exit_code == 0
    result = prunekd("compact", tiny_store.path, "--subset", half, "--keep", 0.2, "--out", tmp_path / "made")
    assert result.exit_code == 0, result.stderr
    assert open_store(tmp_path / "made").split("train").ids.tolist() == read_subset(fifth).ids.tolist()


def test_mistakes_are_told_in_one_line(tiny_store: Store, half: Path, tmp_path: Path) -> None:
    common = ["compact", tiny_store.path, "--subset", half, "--out"]
    assert prunekd(*common, tmp_path / "made").exit_code == 0
    cases = [
        ([*common, tmp_path / "made"], "exists"),
        ([*common, tmp_path / "new", "--keep", 0.7], "fraction 0.5"),
        ([*common, tmp_path / "new", "--keep", 0], "fraction 0.5"),
        (["select", tmp_path / "made", "--policy", "random", "--keep", 0.5, "--out", tmp_path / "q.parquet"], ""),
        (["compact", tiny_store.path, "--subset", tmp_path / "q.parquet", "--out", tmp_path / "new"], "was made for"),
    ]
    for words, message in cases:
        result = prunekd(*words)
        assert result.exit_code == (2 if message else 0), words
        assert message in result.stderr
        assert len(result.stderr.splitlines()) <= 1


def test_training_on_the_compacted_store_is_training_on_the_subset(
    tiny_store: Store, half: Path, tmp_path: Path
) -> None:
    """The same losses, to the bit, from the store with the subset, the compacted one with it, and that one alone."""
    assert prunekd("compact", tiny_store.path, "--subset", half, "--out", tmp_path / "made").exit_code == 0
    arms = {"a": (tiny_store.path, half), "b": (tmp_path / "made", half), "c": (tmp_path / "made", None)}
    losses = {}
    for name, (store, subset) in arms.items():
        words = ["train", store, "--recipe", "demo", "--set", "epochs=2", "--set", "batch_size=16"]
        words += ["--subset", subset] if subset else []
        result = prunekd(*words, "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses[name] = [r["loss"] for r in map(json.loads, lines) if r["kind"] == "epoch"]
    assert len(losses["a"]) == 2
    assert np.isfinite(losses["a"]).all()
    assert losses["a"] == losses["b"] == losses["c"]


def test_inspect_says_whether_it_would_pay(tiny_store: Store, half: Path, tmp_path: Path) -> None:
    words = ["inspect", tiny_store.path, "--subset", half]
    facts = json.loads(prunekd(*words, "--epochs", 30, "--keep", 0.25, "--memory", 1, "--json").stdout)["compaction"]
    assert (facts["kept"], facts["epochs"], facts["memory"]) == (24, 30, 1 << 30)
    assert not facts["readers"]["exact extents (readers native, ffcv, dali)"]["pays"]
    result = prunekd(*words)
    assert result.exit_code == 0, result.stderr
    for text in ("Compacting to 48 samples", "for 90 epochs", "never", "FFCV's Loader", "nothing is measured"):
        assert text in result.stdout
    for wrong, message in (
        (["inspect", half, "--subset", half], "are for stores"),
        (["inspect", tiny_store.path, "--epochs", 3], "give --subset"),
    ):
        result = prunekd(*wrong)
        assert result.exit_code == 2
        assert message in result.stderr
