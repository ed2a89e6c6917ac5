"""k_center: samples that cover their class, farthest first (Sener and Savarese, ICLR 2018, algorithm 1).

In each class the first sample is the one nearest to the mean feature; each next one is the farthest from all chosen so
far, in Euclidean distance. Ties go to the smaller id.
"""

import numpy as np
import torch

from prunekd.pruning.policies.by_class import Progress, classes, require_classes, squared_distances
from prunekd.pruning.policies.ordering import take_turns
from prunekd.pruning.policies.policy import Policy


def rank(
    scores: np.ndarray | None,
    labels: np.ndarray,
    ids: np.ndarray,
    seed: int,
    *,
    balance: str,
    features: np.ndarray,
    progress: Progress,
) -> np.ndarray:
    """Ids, the farthest first, of each class; see `policy.Rank`. features float16 (n, F); ids ascend."""
    require_classes("k_center", balance)
    order = []
    for rows, points in classes(features, labels, progress):
        distances = squared_distances(points)
        wide = points.double()
        chosen = int((wide - wide.mean(dim=0)).square().sum(dim=1).argmin())
        nearest = distances[chosen].clone()
        order.append(rows[chosen])
        nearest[chosen] = -torch.inf
        for _ in range(len(rows) - 1):
            chosen = int(nearest.argmax())
            order.append(rows[chosen])
            nearest = torch.minimum(nearest, distances[chosen])
            nearest[chosen] = -torch.inf
    return ids[take_turns(np.array(order), labels, balance)]


POLICY = Policy(
    name="k_center",
    summary="samples that cover their class, farthest first (--features)",
    rank=rank,
    default_balance="equal",
    needs=("features", "progress"),
)
