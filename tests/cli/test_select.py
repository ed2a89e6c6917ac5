"""`prunekd select` through click's runner."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from prunekd.cli import main
from prunekd.cli.select import _summary
from prunekd.pruning import read_subset
from prunekd.pruning import select as choose
from prunekd.pruning.parquet import made_for
from prunekd.pruning.scores import Scores, write_scores
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from support import write_arrays


@pytest.fixture
def scores(tiny_store, tmp_path):
    """Scores of the tiny store whose `margin` runs against its `teacher_ce`."""
    split = tiny_store.split("train")
    values = np.random.default_rng(0).random(len(split)).astype(np.float32)
    columns = {"teacher_ce": values, "el2n": values**2, "margin": -values}
    path = tmp_path / "scores.parquet"
    write_scores(
        path,
        Scores(
            ids=split.ids,
            labels=split.labels,
            columns=columns,
            definitions={name: f"{name}@1" for name in columns},
            hard_ends={"teacher_ce": "high", "el2n": "high", "margin": "low"},
            class_std=np.ones(4),
            provenance={**made_for(tiny_store, "train"), "teacher": {"model": "a"}},
        ),
    )
    return path


def select(*words):
    return CliRunner().invoke(main, ["select", *(str(word) for word in words)])


def test_medium_writes_a_subset_with_its_provenance(tiny_store, scores, tmp_path):
    out = tmp_path / "half.parquet"
    result = select(tiny_store.path, "--policy", "medium", "--scores", scores, "--keep", 0.5, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "48 of 96 samples kept (50.0%): medium by teacher_ce@1, balance quota, 12 to 12 per class" in result.stdout
    assert result.stdout.splitlines()[-1] == str(out)
    subset = read_subset(out)
    subset.check(tiny_store)
    assert subset.info["class_counts"] == [12] * 4
    split = tiny_store.split("train")
    assert np.bincount(split.labels[split.rows(subset.ids)]).tolist() == [12] * 4


def test_json_is_the_subsets_description(tiny_store, tmp_path):
    out = tmp_path / "r.parquet"
    result = select(
        tiny_store.path, "--policy", "random", "--keep", 0.25, "--seed", 3, "--balance", "equal", "--out", out, "--json"
    )
    printed = json.loads(result.stdout)
    assert printed == {"out": str(out), **read_subset(out).info}
    assert (printed["kept"], printed["seed"], printed["class_counts"]) == (24, 3, [6] * 4)


def test_the_score_and_the_parameters_can_be_chosen(tiny_store, scores, tmp_path):
    by_margin, by_el2n = tmp_path / "margin.parquet", tmp_path / "el2n.parquet"
    common = [tiny_store.path, "--policy", "hardest", "--scores", scores, "--keep", 0.3]
    assert select(*common, "--score", "margin", "--out", by_margin).exit_code == 0
    assert select(*common, "--out", by_el2n).exit_code == 0
    assert read_subset(by_margin).ids.tolist() == read_subset(by_el2n).ids.tolist()
    window = tmp_path / "window.parquet"
    words = [
        tiny_store.path,
        "--policy",
        "window",
        "--scores",
        scores,
        "--keep",
        0.1,
        "--set",
        "low=0",
        "--out",
        window,
    ]
    assert select(*words).exit_code == 0
    assert read_subset(window).info["parameters"] == {"low": 0.0, "high": 0.75}


def test_a_quota_that_keeps_less_than_asked_for_is_told(tiny_store):
    uneven = replace(tiny_store, classes=(*tiny_store.classes, "empty"))
    subset = choose(uneven, "random", 1.0, balance="quota")
    assert subset.info["kept"] == 4 * (96 // 5)
    assert "less than the 100.0% asked for" in _summary(subset)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "random", "--keep", "0"], r"keep must be a fraction in (0, 1], not 0.0"),
        (["--policy", "random", "--keep", "1.5"], r"keep must be a fraction in (0, 1], not 1.5"),
        (["--policy", "randm", "--keep", "0.5"], "unknown policy 'randm' (did you mean 'random'?)"),
        (["--policy", "medium", "--keep", "0.5"], "ranks by a score (teacher_ce) and no scores were given"),
        (["--policy", "window", "--keep", "0.5", "--set", "low"], "--set takes NAME=NUMBER"),
        (["--policy", "medium", "--keep", "0.5", "--scores", "nowhere.parquet"], "nowhere.parquet does not exist"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(tiny_store, tmp_path, words, message):
    out = tmp_path / "x.parquet"
    result = select(tiny_store.path, *words, "--out", out)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not out.exists()


def test_an_unknown_score_is_answered_with_the_nearest(tiny_store, scores, tmp_path):
    words = ["--policy", "hardest", "--scores", scores, "--score", "el2m", "--keep", 0.5, "--out", tmp_path / "x"]
    result = select(tiny_store.path, *words)
    assert result.exit_code == 2
    assert "unknown score 'el2m' (did you mean 'el2n'?)" in result.stderr


def test_scores_of_another_store_are_refused(tiny_store, scores, other_store, tmp_path):
    result = select(other_store.path, "--policy", "medium", "--scores", scores, "--keep", 0.5, "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert str(tiny_store.path) in result.stderr
    assert f"prunekd score {other_store.path}" in result.stderr


@pytest.fixture
def other_store(tmp_path):
    """Another store of the same shape."""
    return convert(open_source(write_arrays(tmp_path / "other.npz", seed=1)), tmp_path / "other", ConvertSettings())
