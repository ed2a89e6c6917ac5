"""Subsets side by side: what they share, how they order it, which classes and which difficulties they keep."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from prunekd.pruning.parquet import check_same_store
from prunekd.pruning.scores.table import Scores
from prunekd.pruning.subset import Subset

BINS = 10


def compare_subsets(
    subsets: Mapping[str, Subset], scores: Scores | None = None, score: str | None = None
) -> dict[str, Any]:
    """Facts about two or more subsets of one store, as plain values.

    Args:
        subsets: by the name they are shown under.
        scores: of that store, for the difficulty of what is kept.
        score: a column of it; None for the first subset's own, else the file's first.

    Returns:
        names; sizes; and in the order of names:
        shared: samples in common; jaccard: |A and B| / |A or B|; of_smaller: |A and B| / min(|A|, |B|); by_chance: what
        of_smaller would be for independent draws; rank_correlation: Spearman's over the common samples, by their places
        in the files (null for fewer than two); class_counts (subsets, C) and class_distance: to the whole set's
        proportions, total variation in [0, 1]; with scores also difficulty: `score`, and `share` (subsets, 10), how
        much of a subset lies in each tenth of all samples, easiest first.

    Raises:
        ValueError: fewer than two subsets, or ones of different stores.
    """
    if len(subsets) < 2:
        raise ValueError("to compare takes two subsets or more")
    (first_name, first), *others = subsets.items()
    for name, subset in others:
        check_same_store(first_name, first.info, name, subset.info)
    pairs = [[_pair(a, b) for b in subsets.values()] for a in subsets.values()]
    totals = np.array(first.info["class_totals"], dtype=np.float64)
    facts: dict[str, Any] = {
        "kind": "comparison",
        "names": list(subsets),
        "sizes": [len(subset) for subset in subsets.values()],
        "total": int(totals.sum()),
        "policies": [subset.info["policy"] for subset in subsets.values()],
        **{key: [[pair[key] for pair in row] for row in pairs] for key in pairs[0][0]},
        "class_counts": [subset.info["class_counts"] for subset in subsets.values()],
        "class_distance": [_distance(np.array(s.info["class_counts"]), totals) for s in subsets.values()],
    }
    if scores is not None:
        check_same_store(first_name, first.info, "the scores", scores.provenance)
        name = score or next(s for s in (first.info["score"], *scores.hard_ends) if s in scores.hard_ends)
        facts["difficulty"] = {"score": name, "share": _by_difficulty(subsets, scores, name)}
    return facts


def _pair(one: Subset, other: Subset) -> dict[str, Any]:
    common, places, others_places = np.intersect1d(one.ids, other.ids, assume_unique=True, return_indices=True)
    shared = len(common)
    return {
        "shared": shared,
        "jaccard": shared / (len(one) + len(other) - shared),
        "of_smaller": shared / min(len(one), len(other)),
        "by_chance": max(len(one), len(other)) / one.info["total"],
        "rank_correlation": _correlation(places, others_places) if shared > 1 else None,
    }


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's: Pearson's of the ranks; places are all different, so there are no ties."""
    ranks = [values.argsort().argsort().astype(np.float64) for values in (one, other)]
    return float(np.atleast_2d(np.corrcoef(ranks[0], ranks[1]))[0, 1])


def _distance(counts: np.ndarray, totals: np.ndarray) -> float:
    return float(np.abs(counts / counts.sum() - totals / totals.sum()).sum() / 2)


def _by_difficulty(subsets: Mapping[str, Subset], scores: Scores, name: str) -> list[list[float]]:
    difficulty = scores.difficulty(name, scores.ids)
    order = np.lexsort((scores.ids, difficulty))
    tenth = np.empty(len(order), dtype=np.int64)
    tenth[order] = np.arange(len(order)) * BINS // len(order)
    shares = []
    for subset in subsets.values():
        found = np.bincount(tenth[np.searchsorted(scores.ids, subset.ids)], minlength=BINS)
        shares.append((found / len(subset)).tolist())
    return shares
