"""herding: samples whose mean feature follows that of their class most closely (Welling, ICML 2009).

In each class w starts at the mean mu of the features; the next sample is the one with the largest inner product with w,
and w grows by mu - h (equations 4 and 5; iCaRL, CVPR 2017, uses it for exemplars). Ties go to the smaller id.
"""

import numpy as np
import torch

from prunekd.pruning.policies.by_class import Progress, classes, require_classes
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
    """Ids in herding order of each class; see `policy.Rank`. features float16 (n, F); ids ascend."""
    require_classes("herding", balance)
    order = []
    for rows, points in classes(features, labels, progress):
        products = (points @ points.T).double()
        to_mean = products.mean(dim=0)
        weight = to_mean.clone()  # <w, h_i> of every sample
        for _ in range(len(rows)):
            best = int(weight.argmax())
            order.append(rows[best])
            weight += to_mean - products[best]
            to_mean[best] = -torch.inf  # taken: its weight stays at the bottom
            weight[best] = -torch.inf
    return ids[take_turns(np.array(order), labels, balance)]


POLICY = Policy(
    name="herding",
    summary="samples whose mean feature follows their class's (--features)",
    rank=rank,
    default_balance="equal",
    needs=("features", "progress"),
)
