"""random: by chance, over all samples or class by class (P1's recommendation, and the arm every comparison needs)."""

import numpy as np

from prunekd.pruning.policies.ordering import by_chance, take_turns
from prunekd.pruning.policies.policy import Policy


def rank(scores: np.ndarray | None, labels: np.ndarray, ids: np.ndarray, seed: int, *, balance: str) -> np.ndarray:
    """Ids in an order drawn from the seed; see `policy.Rank`."""
    return ids[take_turns(by_chance(seed, ids), labels, balance)]


POLICY = Policy(name="random", summary="by chance", rank=rank)
