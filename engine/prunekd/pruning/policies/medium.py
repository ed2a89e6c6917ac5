"""medium: the samples around the median difficulty of their class (Chen et al., ICLR 2025, "P2").

In a class of n samples sorted by ascending difficulty, with mid = n // 2, a quota of q < n and m = q // 2, the ranks
mid - (q - m) ... mid + m - 1 are kept, and all n if q >= n. Raising q by one adds one rank, below and above the middle
in turn: mid - 1, mid, mid - 2, mid + 1, ... So the class has one ranking whose prefixes are the windows of all quotas.
The window never leaves the class: q <= n - 1 gives q - m <= n // 2 = mid and mid + m <= n - 1.
"""

import numpy as np

from prunekd.pruning.policies.ordering import by_difficulty, positions, take_turns
from prunekd.pruning.policies.policy import Policy


def rank(scores: np.ndarray | None, labels: np.ndarray, ids: np.ndarray, seed: int, *, balance: str) -> np.ndarray:
    """Ids from the median outwards, class by class unless `balance` is "none"; see `policy.Rank`."""
    assert scores is not None
    ascending = by_difficulty(scores, ids)
    groups = np.zeros_like(labels) if balance == "none" else labels
    places, sizes = positions(groups[ascending])
    distance = outwards(places, sizes)
    return ids[take_turns(ascending[np.lexsort((groups[ascending], distance))], groups, balance)]


def outwards(places: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Where each rank (n,) stands in mid-1, mid, mid-2, mid+1, ... of a group of the size (n,): int64 (n,).

    The top rank of an odd group has no partner below the middle, so it moves up by one.
    """
    middle = sizes // 2
    turns = np.where(places < middle, 2 * (middle - 1 - places), 2 * (places - middle) + 1)
    return np.minimum(turns, sizes - 1)


POLICY = Policy(
    name="medium",
    summary="around the median difficulty of each class",
    rank=rank,
    default_score="teacher_ce",
    default_balance="quota",
)
