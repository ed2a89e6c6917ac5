"""Selecting through the public face: paths and objects alike, the same bytes as through the command line."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import prunekd
from prunekd.api.selecting import select_ratios
from prunekd.cli import main
from prunekd.pruning.parquet import made_for
from prunekd.store import Store


@pytest.fixture
def scores(tiny_store: Store, tmp_path: Path) -> prunekd.Scores:
    """Scores that `tmp_path/scores.parquet` holds too."""
    split = tiny_store.split("train")
    values = np.random.default_rng(0).random(len(split)).astype(np.float32)
    made = prunekd.Scores(
        ids=split.ids, labels=split.labels, columns={"teacher_ce": values, "el2n": -values},
        definitions={"teacher_ce": "teacher_ce@1", "el2n": "el2n@1"}, hard_ends={"teacher_ce": "high", "el2n": "high"},
        class_std=np.ones(4), provenance=made_for(tiny_store, "train"),
    )  # fmt: skip
    made.save(tmp_path / "scores.parquet")
    return made


def test_a_subset_is_the_same_from_paths_objects_and_the_command_line(
    tiny_store: Store, scores: prunekd.Scores, tmp_path: Path
) -> None:
    file, words = tmp_path / "scores.parquet", ("--policy", "medium", "--keep", "0.25", "--out")
    done = CliRunner().invoke(
        main, ["select", str(tiny_store.path), "--scores", str(file), *words, str(tmp_path / "v.parquet")]
    )
    assert done.exit_code == 0, done.output
    for store, given in ((tiny_store, scores), (str(tiny_store.path), str(file)), (tiny_store.path, file)):
        chosen = prunekd.select(store, "medium", keep=0.25, scores=given)
        chosen.save(tmp_path / "api.parquet")
        assert (tmp_path / "api.parquet").read_bytes() == (tmp_path / "v.parquet").read_bytes()


def test_the_options_reach_the_policy(tiny_store: Store, scores: prunekd.Scores) -> None:
    values = scores["teacher_ce"]
    hardest = prunekd.select(tiny_store, "hardest", keep=0.1, scores=scores, score="teacher_ce")
    assert set(hardest.ids) == set(np.argsort(values)[-10:])
    by_other = prunekd.select(tiny_store, "hardest", keep=0.1, scores=scores, score="el2n")
    assert set(by_other.ids) == set(np.argsort(values)[:10])
    low = prunekd.select(tiny_store, "window", keep=0.1, scores=scores, parameters={"low": 0.0, "high": 0.5})
    assert set(low.ids) <= set(np.argsort(values)[:48])
    assert not np.array_equal(*(prunekd.select(tiny_store, "random", keep=0.5, seed=seed).ids for seed in (0, 1)))
    balanced = prunekd.select(tiny_store, "random", keep=0.25, balance="equal")
    assert np.bincount(tiny_store.split("train").labels[balanced.ids]).tolist() == [6] * 4
    assert set(prunekd.select(tiny_store, "random", keep=1, split="val").ids) == set(range(32))


def test_features_are_a_file(tiny_store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.random.default_rng(0).random((96, 5)).astype(np.float16))
    seen: list[tuple[int, int]] = []
    chosen = [
        prunekd.select(tiny_store, "herding", keep=0.25, features=file, progress=lambda *done: seen.append(done))
        for file in (tmp_path / "features.npy", str(tmp_path / "features.npy"))
    ]
    assert chosen[0].ids.tolist() == chosen[1].ids.tolist()
    assert seen[-1] == (4, 4)


def test_several_fractions_are_those_chosen_one_by_one(tiny_store: Store) -> None:
    several = select_ratios(tiny_store.path, "random", keeps=[0.5, 0.25], seed=2)
    for keep, subset in zip((0.5, 0.25), several, strict=True):
        alone = prunekd.select(tiny_store, "random", keep=keep, seed=2)
        assert subset.ids.tolist() == alone.ids.tolist()
        assert subset.info == alone.info


def test_what_cannot_be_selected_is_refused(tiny_store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'random'"):
        prunekd.select(tiny_store, "randm", keep=0.5)
    with pytest.raises(ValueError, match=r"in \(0, 1\], not 0"):
        prunekd.select(tiny_store, "random", keep=0)
    with pytest.raises(ValueError, match=r"none\.parquet does not exist"):
        prunekd.select(tiny_store, "medium", keep=0.5, scores=tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="looks at features"):
        prunekd.select(tiny_store, "herding", keep=0.5)
