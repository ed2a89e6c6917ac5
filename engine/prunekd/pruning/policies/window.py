"""window: by chance among the samples whose difficulty lies between two quantiles."""

import numpy as np

from prunekd.pruning.policies.ordering import by_chance, by_difficulty, positions, take_turns
from prunekd.pruning.policies.policy import Policy


def rank(
    scores: np.ndarray | None,
    labels: np.ndarray,
    ids: np.ndarray,
    seed: int,
    *,
    balance: str,
    low: float,
    high: float,
) -> np.ndarray:
    """Ids drawn from the window; see `policy.Rank`.

    In a group of n samples (all, or the class unless `balance` is "none") the window holds the ranks from n * low up to
    but without n * high, both rounded half up, of the samples sorted by ascending difficulty.

    Raises:
        ValueError: not 0 <= low < high <= 1, or no sample inside.
    """
    assert scores is not None
    if not 0 <= low < high <= 1:
        raise ValueError(f"window needs 0 <= low < high <= 1, not low={low}, high={high}")
    ascending = by_difficulty(scores, ids)
    groups = np.zeros_like(labels) if balance == "none" else labels
    places, sizes = positions(groups[ascending])
    inside = (places >= np.floor(sizes * low + 0.5)) & (places < np.floor(sizes * high + 0.5))
    rows = ascending[inside]
    if not len(rows):
        raise ValueError(f"no sample lies in the window low={low}, high={high}; widen it")
    return ids[rows][take_turns(by_chance(seed, ids[rows]), labels[rows], balance)]


POLICY = Policy(
    name="window",
    summary="by chance between two quantiles of difficulty (--set low=0.25 --set high=0.75)",
    rank=rank,
    default_score="teacher_ce",
    parameters={"low": 0.25, "high": 0.75},
)
