"""A policy of one's own, `spread`: samples of every difficulty, as evenly as possible, at any keep ratio.

    python docs/examples/own_policy.py select store --policy spread --scores scores.parquet --keep 0.3 --out s.parquet

takes every verb and option of `prunekd`.
"""

import numpy as np

from prunekd.cli import main
from prunekd.pruning.policies import POLICIES, Policy
from prunekd.pruning.policies.ordering import by_difficulty, take_turns

GOLDEN = (5**0.5 - 1) / 2


def rank(scores: np.ndarray | None, labels: np.ndarray, ids: np.ndarray, seed: int, *, balance: str) -> np.ndarray:
    """All ids, the first to be kept first; see `prunekd.pruning.policies.policy.Rank` for the rules.

    The multiples of the golden ratio modulo 1 fall evenly into [0, 1), and so does every stretch of them that begins at
    the first. Taking the sample whose multiple is least, then the next, spreads every prefix over all difficulties.
    """
    assert scores is not None  # `default_score` below says that there is one
    order = by_difficulty(scores, ids)
    turns = np.arange(1, len(ids) + 1) * GOLDEN % 1.0
    return ids[take_turns(order[np.argsort(turns)], labels, balance)]


SPREAD = Policy(name="spread", summary="evenly over all difficulties", rank=rank, default_score="teacher_ce")

if __name__ == "__main__":
    POLICIES[SPREAD.name] = SPREAD
    main()
