"""Subsets side by side: what they share, how they order it, which classes and which difficulties they keep."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from prunekd.pruning.parquet import check_same_store
from prunekd.pruning.scores.table import Scores
from prunekd.pruning.subset import Subset

BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """How hard the kept samples are.

    Attributes:
        score: the column that says so.
        share: (subsets, 10), how much of a subset lies in each tenth of all samples, easiest first.
    """

    score: str
    share: list[list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two subsets.

    Attributes:
        shared: samples in common.
        jaccard: |A and B| / |A or B|.
        of_smaller: |A and B| / min(|A|, |B|).
        by_chance: what of_smaller would be for independent draws.
        rank_correlation: Spearman's over the common samples, by their places in the files; None for fewer than two.
    """

    shared: int
    jaccard: float
    of_smaller: float
    by_chance: float
    rank_correlation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two or more subsets of one store, everything in the order of `names`.

    Attributes:
        sizes: samples kept; total: samples there are.
        policies: which chose them.
        pairs: (subsets, subsets).
        class_counts: (subsets, C).
        class_distance: to the whole set's proportions, total variation in [0, 1].
        difficulty: None if no scores were given.
        picture, contact_sheets: what was drawn.
    """

    names: list[str]
    sizes: list[int]
    total: int
    policies: list[str]
    pairs: list[list[Pair]]
    class_counts: list[list[int]]
    class_distance: list[float]
    difficulty: Difficulty | None = None
    picture: Path | None = None
    contact_sheets: list[Path] | None = None

    @property
    def of_smaller(self) -> list[list[float]]:
        """Shared samples of the smaller subset, by pair."""
        return [[pair.of_smaller for pair in row] for row in self.pairs]

    @property
    def rank_correlation(self) -> list[list[float | None]]:
        """Spearman's correlation, by pair."""
        return [[pair.rank_correlation for pair in row] for row in self.pairs]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; the figures of pairs as one matrix each."""
        pairs = [[asdict(pair) for pair in row] for row in self.pairs]
        values: dict[str, object] = {
            "kind": "comparison",
            "names": self.names,
            "sizes": self.sizes,
            "total": self.total,
            "policies": self.policies,
            **{key: [[pair[key] for pair in row] for row in pairs] for key in pairs[0][0]},
            "class_counts": self.class_counts,
            "class_distance": self.class_distance,
        }
        if self.difficulty is not None:
            values["difficulty"] = asdict(self.difficulty)
        if self.picture is not None:
            values["picture"] = str(self.picture)
        if self.contact_sheets is not None:
            values["contact_sheets"] = [str(sheet) for sheet in self.contact_sheets]
        return values


def compare_subsets(
    subsets: Mapping[str, Subset], scores: Scores | None = None, score: str | None = None
) -> Comparison:
    """Compare two or more subsets of one store.

    Args:
        subsets: by the name they are shown under.
        scores: of that store, for the difficulty of what is kept.
        score: a column of it; None for the first subset's own, else the file's first.

    Raises:
        ValueError: fewer than two subsets, or ones of different stores or splits, or a sample without
            a score.
    """
    if len(subsets) < 2:
        raise ValueError("to compare takes two subsets or more")
    (first_name, first), *others = subsets.items()
    for name, subset in others:
        check_same_store(first_name, first.info, name, subset.info)
    totals = np.array(first.info["class_totals"], dtype=np.float64)
    difficulty = None
    if scores is not None:
        check_same_store(first_name, first.info, "the scores", scores.provenance)
        name = score or next(s for s in (first.info["score"], *scores.hard_ends) if s in scores.hard_ends)
        difficulty = Difficulty(score=name, share=_by_difficulty(subsets, scores, name))
    return Comparison(
        names=list(subsets),
        sizes=[len(subset) for subset in subsets.values()],
        total=int(totals.sum()),
        policies=[subset.info["policy"] for subset in subsets.values()],
        pairs=[[_pair(a, b) for b in subsets.values()] for a in subsets.values()],
        class_counts=[subset.info["class_counts"] for subset in subsets.values()],
        class_distance=[_distance(np.array(s.info["class_counts"]), totals) for s in subsets.values()],
        difficulty=difficulty,
    )


def _pair(one: Subset, other: Subset) -> Pair:
    common, places, others_places = np.intersect1d(one.ids, other.ids, assume_unique=True, return_indices=True)
    shared = len(common)
    return Pair(
        shared=shared,
        jaccard=shared / (len(one) + len(other) - shared),
        of_smaller=shared / min(len(one), len(other)),
        by_chance=max(len(one), len(other)) / one.info["total"],
        rank_correlation=_correlation(places, others_places) if shared > 1 else None,
    )


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
        found = np.bincount(tenth[scores.rows(subset.ids)], minlength=BINS)
        shares.append((found / len(subset)).tolist())
    return shares
