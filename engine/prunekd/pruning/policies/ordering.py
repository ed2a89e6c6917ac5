"""The sorts that policies are made of: by difficulty, by chance, and taking turns between classes.

Everything here works on rows (positions in the arrays given) and is decided by the samples' ids alone, so that the
order in which the samples come changes nothing.
"""

import numpy as np

from prunekd.common.philox import SELECT, random_keys
from prunekd.pruning.parquet import some

BALANCES = {
    "none": "one ranking over all samples",
    "proportional": "each class keeps its share: every prefix holds the classes in the whole set's proportions",
    "equal": "classes take turns, so each keeps the same number; what a small class cannot give, the others do",
    "quota": "at most int(N / classes * keep) of each class; a class that is smaller is kept whole",
}


def by_difficulty(difficulty: np.ndarray, ids: np.ndarray, hardest_first: bool = False) -> np.ndarray:
    """Rows (n,) sorted by `difficulty` (n,), equal ones by ascending id. Infinities are ordered as numbers.

    Raises:
        ValueError: a difficulty is NaN; the message names the samples.
    """
    unordered = np.isnan(difficulty)
    if unordered.any():
        raise ValueError(f"the score is NaN for {int(unordered.sum())} samples, ids {some(ids[unordered])}")
    return np.lexsort((ids, -difficulty if hardest_first else difficulty))


def by_chance(seed: int, ids: np.ndarray) -> np.ndarray:
    """Rows (n,) in an order drawn from `seed` and each sample's id."""
    return np.lexsort((ids, random_keys(seed, 0, SELECT, ids)))


def positions(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each entry's place among those of its group, in the order given, and the group's size: int64 (n,) both."""
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    gathered = np.argsort(groups, kind="stable")
    places = np.empty(len(groups), dtype=np.int64)
    places[gathered] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return places, sizes[groups]


def take_turns(order: np.ndarray, groups: np.ndarray, balance: str) -> np.ndarray:
    """Merge the groups' own rankings into one, whose every prefix is balanced as `balance` says.

    Args:
        order: rows (n,), the best first; within a group this order stays, and it decides between groups whose turn it
            is at once.
        groups: int64 (n,), the group of each row (not of each entry of `order`).
        balance: a key of BALANCES. "proportional" is Webster's apportionment, which unlike the largest-remainder method
            never takes a sample back when the ratio grows.
    """
    assert balance in BALANCES, balance
    if balance == "none":
        return order
    places, sizes = positions(groups[order])
    turn = (places + 0.5) / sizes if balance == "proportional" else places
    return order[np.argsort(turn, kind="stable")]
