"""`prunekd compare` and several ratios of `prunekd select`."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

from prunekd.cli import main


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_several_ratios_are_compared(tiny_store, tmp_path):
    made = run(
        "select", tiny_store.path, "--policy", "random", "--keep", "0.5,0.25", "--out", tmp_path / "r-{keep}.parquet"
    )
    assert made.exit_code == 0, made.stderr
    files = [tmp_path / "r-0.5.parquet", tmp_path / "r-0.25.parquet"]
    assert "48 of 96" in made.output
    assert "24 of 96" in made.output
    words = ("--out", tmp_path / "c.png", "--sheets", tmp_path / "sheets", "--store", tiny_store.path)
    told = run("compare", *files, *words)
    assert told.exit_code == 0, told.stderr
    for text in ("r-0.25", "random", "Jaccard index", "0.500", "Rank correlation", "c.png"):
        assert text in told.output
    assert Image.open(tmp_path / "c.png").width > 1000
    assert sorted(p.name for p in (tmp_path / "sheets").iterdir()) == ["r-0.25.png", "r-0.5.png"]
    facts = json.loads(run("compare", *files, "--json").stdout)
    assert facts["shared"] == [[48, 24], [24, 24]]
    assert facts["rank_correlation"][0][1] == pytest.approx(1.0)


def test_ratios_without_files_of_their_own_and_files_that_exist_are_refused(tiny_store, tmp_path):
    words = ("select", tiny_store.path, "--policy", "random")
    refused = run(*words, "--keep", "0.5,0.25", "--out", tmp_path / "r.parquet")
    assert refused.exit_code == 2
    assert "write --out with {keep} in its name" in refused.stderr
    assert run(*words, "--keep", "0.5", "--out", tmp_path / "r.parquet").exit_code == 0
    refused = run(*words, "--keep", "0.5", "--out", tmp_path / "r.parquet")
    assert refused.exit_code == 2
    assert "never overwritten" in refused.stderr
    assert run(*words, "--keep", "half", "--out", tmp_path / "h.parquet").exit_code == 2
    refused = run("compare", tmp_path / "r.parquet", tmp_path / "r.parquet", "--sheets", tmp_path)
    assert refused.exit_code == 2
    assert "needs --store" in refused.stderr
