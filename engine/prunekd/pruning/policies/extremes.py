"""hardest and easiest: one end of a score."""

import numpy as np

from prunekd.pruning.policies.ordering import by_difficulty, take_turns
from prunekd.pruning.policies.policy import Policy


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


HARDEST = Policy(name="hardest", summary="the hardest samples", rank=rank_hardest, default_score="el2n")
EASIEST = Policy(name="easiest", summary="the easiest samples", rank=rank_easiest, default_score="el2n")
