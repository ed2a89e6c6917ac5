"""Comparisons against plain sets and scipy-free formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunekd.pruning import Subset
from prunekd.pruning.compare import compare_subsets
from prunekd.pruning.scores import Scores

TOTAL, CLASSES = 40, 3
LABELS = np.arange(TOTAL) % CLASSES


def subset(ids: list[int], fingerprint: str = "f" * 64) -> Subset:
    info = {
        "policy": "random", "score": None, "total": TOTAL, "keep": 0.5, "fingerprint": fingerprint,
        "store": {"path": "store", "classes": CLASSES},
        "class_counts": np.bincount(LABELS[ids], minlength=CLASSES).tolist(),
        "class_totals": np.bincount(LABELS, minlength=CLASSES).tolist(),
    }  # fmt: skip
    return Subset(ids=np.array(ids), info=info)


def drawn_ids() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, TOTAL - 1), min_size=1, max_size=TOTAL, unique=True)


@given(drawn_ids(), drawn_ids())
def test_overlap_and_rank_correlation_are_their_definitions(one: list[int], other: list[int]) -> None:
    comparison = compare_subsets({"a": subset(one), "b": subset(other)})
    pair = comparison.pairs[0][1]
    both = set(one) & set(other)
    assert pair.shared == comparison.pairs[1][0].shared == len(both)
    assert pair.jaccard == pytest.approx(len(both) / len(set(one) | set(other)))
    assert comparison.of_smaller[1][0] == pytest.approx(len(both) / min(len(one), len(other)))
    assert pair.by_chance == pytest.approx(max(len(one), len(other)) / TOTAL)
    assert comparison.sizes == [len(one), len(other)]
    assert comparison.pairs[0][0].jaccard == 1.0
    if len(both) < 2:
        assert pair.rank_correlation is None
        return
    a, b = ([i for i in ids if i in both] for ids in (one, other))
    n = len(both)
    squares = sum((a.index(i) - b.index(i)) ** 2 for i in both)
    assert comparison.rank_correlation[0][1] == pytest.approx(1 - 6 * squares / (n * (n * n - 1)))


def test_classes_and_difficulty() -> None:
    difficulty = np.random.default_rng(0).permutation(TOTAL).astype(np.float32)
    scores = Scores(
        ids=np.arange(TOTAL), labels=LABELS, columns={"margin": -difficulty}, definitions={"margin": "margin@1"},
        hard_ends={"margin": "low"}, class_std=np.full(CLASSES, np.nan),
        provenance={"fingerprint": "f" * 64, "store": {"path": "store", "classes": CLASSES}},
    )  # fmt: skip
    easiest = np.argsort(difficulty)[:8].tolist()
    one_class = np.flatnonzero(LABELS == 1).tolist()
    comparison = compare_subsets({"easy": subset(easiest), "one": subset(one_class)}, scores)
    assert comparison.difficulty is not None
    assert comparison.difficulty.score == "margin"
    assert comparison.difficulty.share[0] == pytest.approx([0.5, 0.5] + [0.0] * 8)
    assert sum(comparison.difficulty.share[1]) == pytest.approx(1)
    assert comparison.class_distance[1] == pytest.approx(1 - 13 / 40)
    assert comparison.class_counts[1] == [0, 13, 0]


def test_subsets_of_different_stores_are_refused() -> None:
    with pytest.raises(ValueError, match="two subsets or more"):
        compare_subsets({"a": subset([1])})
    with pytest.raises(ValueError, match=r"a was made for .*, but b for"):
        compare_subsets({"a": subset([1]), "b": subset([1], "0" * 64)})
