"""A smaller subset of a ranking is what selecting the smaller fraction gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunekd.pruning import Subset, read_subset, select
from prunekd.pruning.parquet import made_for
from prunekd.pruning.prefix import prefix
from prunekd.pruning.scores import Scores
from prunekd.store import Store


@pytest.fixture
def scores(tiny_store: Store) -> Scores:
    split = tiny_store.split("train")
    values = np.random.default_rng(1).random(len(split)).astype(np.float32)
    return Scores(
        ids=split.ids, labels=split.labels, columns={"teacher_ce": values, "dual": values, "p_mean": values},
        definitions={"teacher_ce": "teacher_ce@1", "dual": "dual@1", "p_mean": "p_mean@1"},
        hard_ends={"teacher_ce": "high", "dual": "high"}, class_std=np.ones(4),
        provenance=made_for(tiny_store, "train"),
    )  # fmt: skip


@pytest.mark.parametrize("balance", ["none", "proportional", "equal", "quota"])
@pytest.mark.parametrize("policy", ["random", "medium"])
def test_a_prefix_is_the_smaller_selection(tiny_store: Store, scores: Scores, policy: str, balance: str) -> None:
    larger, smaller = (select(tiny_store, policy, keep, 7, scores=scores, balance=balance) for keep in (0.6, 0.23))
    found = prefix(tiny_store, larger, 0.23)
    assert found.ids.tolist() == smaller.ids.tolist()
    assert found.info == smaller.info
    assert prefix(tiny_store, larger, None) is larger
    assert prefix(tiny_store, larger, 0.6) is larger


def test_weights_stay_with_their_samples_and_a_file_does_as_well(tiny_store: Store, tmp_path: Path) -> None:
    half = select(tiny_store, "random", 0.5)
    weighted = replace(half, weights=half.ids.astype(np.float32))
    weighted.save(tmp_path / "half.parquet")
    found = prefix(tiny_store, read_subset(tmp_path / "half.parquet"), 0.25)
    assert found.weights is not None
    assert found.weights.tolist() == found.ids.tolist()


def test_what_has_no_such_prefix_is_refused(tiny_store: Store, scores: Scores) -> None:
    half = select(tiny_store, "random", 0.5)
    for keep in (0.7, 0, -1):
        with pytest.raises(ValueError, match=r"has the fraction 0\.5 of the ranking"):
            prefix(tiny_store, half, keep)
    beta = select(tiny_store, "beta", 0.5, scores=scores, score="dual")
    with pytest.raises(ValueError, match=r"depends on the fraction: select 0\.25 first"):
        prefix(tiny_store, beta, 0.25)
    with pytest.raises(ValueError, match="no ranking of a policy"):
        prefix(tiny_store, Subset.of_ids(tiny_store, np.arange(48)), 0.25)
