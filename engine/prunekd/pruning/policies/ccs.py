"""ccs: coverage-centric selection (Zheng et al., ICLR 2023).

The hardest fraction beta is given up as likely mislabelled; the range of the remaining difficulties is cut into strata
of equal width, and each stratum gives the same number, by chance; what a sparse stratum lacks, the others give. The
authors allot a remainder to the fullest strata; here chance decides, which makes every ratio a prefix of one ranking.
"""

import math

import numpy as np

from prunekd.pruning.policies.ordering import by_chance, by_difficulty, take_turns
from prunekd.pruning.policies.policy import Policy


def rank(
    scores: np.ndarray | None,
    labels: np.ndarray,
    ids: np.ndarray,
    seed: int,
    *,
    balance: str,
    beta: float,
    strata: float,
) -> np.ndarray:
    """Ids, the strata taking turns; see `policy.Rank`. int(N * beta) ids are left out.

    Raises:
        ValueError: beta outside [0, 1), strata not a whole number >= 1, or a balance other than "none".
    """
    assert scores is not None
    if not 0 <= beta < 1:
        raise ValueError(f"ccs needs 0 <= beta < 1, not {beta}")
    if strata < 1 or strata != int(strata):
        raise ValueError(f"ccs needs a whole number of strata, at least 1, not {strata}")
    if balance != "none":
        raise ValueError(
            f"ccs balances strata of difficulty, not classes; leave the balance at 'none', not {balance!r}"
        )
    ascending = by_difficulty(scores, ids)
    rows = ascending[: len(ascending) - math.floor(len(ascending) * beta)]
    chosen = by_chance(seed, ids[rows])
    return ids[rows][take_turns(chosen, stratum(scores[rows], int(strata)), "equal")]


def stratum(difficulty: np.ndarray, count: int) -> np.ndarray:
    """The stratum 0 ... count - 1 of each value (n,), of equal width over the finite range; infinities at the ends."""
    finite = difficulty[np.isfinite(difficulty)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    edges = np.linspace(low, high, count + 1)[1:-1]
    return np.searchsorted(edges, difficulty, side="right")


CCS = Policy(
    name="ccs",
    summary="the hardest beta dropped, equal numbers from strata of difficulty (--set beta=0.1 --set strata=50)",
    rank=rank,
    default_score="teacher_ce",
    parameters={"beta": 0.1, "strata": 50},
)
