"""d2: difficult samples far from each other, by messages over a graph of neighbours (Maharana et al., ICLR 2024).

Each sample starts from its difficulty, scaled to [0, 1], and adds those of its `neighbours` nearest samples, each times
exp(-d^2) (forward messages, equation 2). Then the sample of the highest value is taken, and its neighbours lose
exp(-gamma d^2) of the value it had (reverse messages, equation 4), again and again. Distances are between features of
unit length; the graph is that of the class (the authors' spans all classes, which takes n^2 distances). Ties go to the
smaller id.
"""

import heapq

import numpy as np
import torch
import torch.nn.functional as F

from prunekd.pruning.policies.by_class import Progress, classes, require_classes, squared_distances
from prunekd.pruning.policies.ordering import by_difficulty, take_turns
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
    neighbours: float,
    gamma: float,
) -> np.ndarray:
    """Ids in the order taken, class by class; see `policy.Rank`. features float16 (n, F); ids ascend.

    Raises:
        ValueError: neighbours not a whole number >= 1, gamma negative, or scores that are NaN or infinite.
    """
    assert scores is not None
    require_classes("d2", balance)
    if neighbours < 1 or neighbours != int(neighbours):
        raise ValueError(f"d2 needs a whole number of neighbours, at least 1, not {neighbours}")
    if gamma < 0:
        raise ValueError(f"d2 needs gamma >= 0, not {gamma}")
    by_difficulty(scores, ids)  # refuses NaN
    if not np.isfinite(scores).all():
        raise ValueError("d2 adds scores up and needs finite ones; choose another score")
    span = max(float(scores.max() - scores.min()), 1e-12)
    difficulty = (scores - scores.min()) / span
    order: list[int] = []
    for rows, points in classes(features, labels, progress):
        count = min(int(neighbours), len(rows) - 1)
        distances = squared_distances(F.normalize(points)).fill_diagonal_(torch.inf)
        near, who = distances.topk(count, dim=1, largest=False)
        picked = _take(difficulty[rows].astype(np.float64), near.cpu().numpy(), who.cpu().numpy(), gamma)
        order.extend(rows[picked].tolist())
    return ids[take_turns(np.array(order), labels, balance)]


def _take(value: np.ndarray, near: np.ndarray, who: np.ndarray, gamma: float) -> list[int]:
    """The order in which the samples of a class are taken; near and who (m, k): squared distances and neighbours."""
    value = value + (np.exp(-near) * value[who]).sum(axis=1)
    heap = [(-v, i) for i, v in enumerate(value.tolist())]
    heapq.heapify(heap)
    taken = np.zeros(len(value), dtype=bool)
    order = []
    while heap:
        negative, i = heapq.heappop(heap)
        if taken[i] or -negative != value[i]:
            continue  # an entry from before the value was lowered
        taken[i] = True
        order.append(i)
        for j, distance in zip(who[i].tolist(), near[i].tolist(), strict=True):
            if not taken[j]:
                value[j] -= np.exp(-gamma * distance) * value[i]
                heapq.heappush(heap, (-float(value[j]), j))
    return order


POLICY = Policy(
    name="d2",
    summary="difficult samples far from each other (--features; --set neighbours=5 --set gamma=0.1)",
    rank=rank,
    default_score="el2n",
    default_balance="equal",
    parameters={"neighbours": 5, "gamma": 0.1},
    needs=("features", "progress"),
)
