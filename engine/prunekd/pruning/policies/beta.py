"""beta: by chance, weighted by the score times a Beta density of the mean prediction (DUAL, Cho et al., ICML 2025).

With r the share that is pruned, mu the mean p of the ten samples of the highest score, and c_d = 4, the density is
Beta(16 - b, b) with b = 15 (1 - mu) (1 - r^c_d): the more is pruned, the more it leans towards easy samples (section
3.3). A sample's weight is its score times that density at its own mean p; samples are drawn without replacement.
Since the density depends on the keep ratio, a smaller ratio is not a prefix of a larger one here.
"""

import numpy as np

from prunekd.common.philox import SELECT, uniforms
from prunekd.pruning.policies.ordering import by_difficulty, take_turns
from prunekd.pruning.policies.policy import Policy

ANCHORS = 10
CONCENTRATION = 15.0


def rank(
    scores: np.ndarray | None,
    labels: np.ndarray,
    ids: np.ndarray,
    seed: int,
    *,
    balance: str,
    keep: float,
    p_mean: np.ndarray,
    c_d: float,
) -> np.ndarray:
    """Ids in the order of the draw; see `policy.Rank`. p_mean (n,): mean probability of the label in training.

    Raises:
        ValueError: c_d not positive, a negative score, or a mean prediction outside [0, 1].
    """
    assert scores is not None
    if not c_d > 0:
        raise ValueError(f"beta needs c_d > 0, not {c_d}")
    if (scores < 0).any() or not ((p_mean >= 0) & (p_mean <= 1)).all():
        raise ValueError("beta weighs by a score that is not negative (dual) and needs p_mean in [0, 1]")
    hardest = by_difficulty(scores, ids, hardest_first=True)
    anchor = p_mean[hardest[:ANCHORS]].mean()
    b = CONCENTRATION * (1 - anchor) * (1 - (1 - keep) ** c_d)
    a = CONCENTRATION + 1 - b
    inside = np.clip(p_mean.astype(np.float64), 1e-6, 1 - 1e-6)
    with np.errstate(divide="ignore"):
        log_weight = np.log(scores.astype(np.float64)) + (a - 1) * np.log(inside) + (b - 1) * np.log1p(-inside)
        # the smallest of exponential times with these rates come first: drawing without replacement
        times = np.log(-np.log1p(-uniforms(seed, 0, SELECT, ids)[0])) - log_weight
    return ids[take_turns(np.lexsort((ids, times)), labels, balance)]


BETA = Policy(
    name="beta",
    summary="by chance, leaning to easier samples the more is pruned (DUAL; --set c_d=4)",
    rank=rank,
    default_score="dual",
    parameters={"c_d": 4.0},
    needs=("keep", "p_mean"),
)
