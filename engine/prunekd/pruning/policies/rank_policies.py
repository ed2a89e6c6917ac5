"""Policies of chance and of a sample's rank in difficulty: random, hardest, easiest, medium, moderate, window."""

import numpy as np

from prunekd.pruning.policies.ordering import by_chance, by_difficulty, positions, take_turns
from prunekd.pruning.policies.policy import Policy


def rank_random(
    scores: np.ndarray | None, labels: np.ndarray, ids: np.ndarray, seed: int, *, balance: str
) -> np.ndarray:
    """Ids in an order drawn from the seed; see `policy.Rank`.

    P1's recommendation, and the arm that every comparison needs.
    """
    return ids[take_turns(by_chance(seed, ids), labels, balance)]


def rank_hardest(
    scores: np.ndarray | None, labels: np.ndarray, ids: np.ndarray, seed: int, *, balance: str
) -> np.ndarray:
    """Ids by descending difficulty; see `policy.Rank`."""
    assert scores is not None
    return ids[take_turns(by_difficulty(scores, ids, hardest_first=True), labels, balance)]


def rank_easiest(
    scores: np.ndarray | None, labels: np.ndarray, ids: np.ndarray, seed: int, *, balance: str
) -> np.ndarray:
    """Ids by ascending difficulty; see `policy.Rank`."""
    assert scores is not None
    return ids[take_turns(by_difficulty(scores, ids), labels, balance)]


def rank_medium(
    scores: np.ndarray | None, labels: np.ndarray, ids: np.ndarray, seed: int, *, balance: str
) -> np.ndarray:
    """Ids from the median difficulty outwards, class by class unless `balance` is "none"; see `policy.Rank`.

    P2's rule (Chen et al., ICLR 2025): in a class of n samples sorted by ascending difficulty, with mid = n // 2, a
    quota of q < n and m = q // 2, the ranks mid - (q - m) ... mid + m - 1 are kept, and all n if q >= n. Raising q by
    one adds one rank, below and above the middle in turn: mid - 1, mid, mid - 2, mid + 1, ... So the class has one
    ranking whose prefixes are the windows of all quotas. The window never leaves the class: q <= n - 1 gives
    q - m <= n // 2 = mid and mid + m <= n - 1.
    """
    assert scores is not None
    ascending, groups, places, sizes = _ranks(scores, labels, ids, balance)
    # distance from the middle; the top rank of an odd group has no partner below the middle, so it moves up by one
    middle = sizes // 2
    turns = np.where(places < middle, 2 * (middle - 1 - places), 2 * (places - middle) + 1)
    outwards = np.lexsort((groups[ascending], np.minimum(turns, sizes - 1)))
    return ids[take_turns(ascending[outwards], groups, balance)]


def rank_window(
    scores: np.ndarray | None,
    labels: np.ndarray,
    ids: np.ndarray,
    seed: int,
    *,
    balance: str,
    low: float,
    high: float,
) -> np.ndarray:
    """Ids drawn from those whose difficulty lies between two quantiles; see `policy.Rank`.

    In a group of n samples (all, or the class unless `balance` is "none") the window holds the ranks from n * low up to
    but without n * high, both rounded half up, of the samples sorted by ascending difficulty.

    Raises:
        ValueError: not 0 <= low < high <= 1, or no sample inside.
    """
    assert scores is not None
    if not 0 <= low < high <= 1:
        raise ValueError(f"window needs 0 <= low < high <= 1, not low={low}, high={high}")
    ascending, _, places, sizes = _ranks(scores, labels, ids, balance)
    inside = (places >= np.floor(sizes * low + 0.5)) & (places < np.floor(sizes * high + 0.5))
    rows = ascending[inside]
    if not len(rows):
        raise ValueError(f"no sample lies in the window low={low}, high={high}; widen it")
    return ids[rows][take_turns(by_chance(seed, ids[rows]), labels[rows], balance)]


def _ranks(
    scores: np.ndarray, labels: np.ndarray, ids: np.ndarray, balance: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows by ascending difficulty, the group of each row, and by ascending difficulty rank in and size of the group.

    A group is a class, or everything if `balance` is "none". All four are int64 (n,).
    """
    ascending = by_difficulty(scores, ids)
    groups = np.zeros_like(labels) if balance == "none" else labels
    return ascending, groups, *positions(groups[ascending])


RANDOM = Policy(name="random", summary="by chance", rank=rank_random)
HARDEST = Policy(name="hardest", summary="the hardest samples", rank=rank_hardest, default_score="el2n")
EASIEST = Policy(name="easiest", summary="the easiest samples", rank=rank_easiest, default_score="el2n")
MEDIUM = Policy(
    name="medium",
    summary="around the median difficulty of each class",
    rank=rank_medium,
    default_score="teacher_ce",
    default_balance="quota",
)
# Xia et al. (ICLR 2023) keep one percentile band, 0.5 - keep / 2 to 0.5 + keep / 2, of all distances together. So the
# ranking is from the median distance outwards, as in `medium`, over all samples unless another balance is asked for.
MODERATE = Policy(
    name="moderate",
    summary="around the median distance to the class's median feature",
    rank=rank_medium,
    default_score="moderate",
)
WINDOW = Policy(
    name="window",
    summary="by chance between two quantiles of difficulty (--set low=0.25 --set high=0.75)",
    rank=rank_window,
    default_score="teacher_ce",
    parameters={"low": 0.25, "high": 0.75},
)
