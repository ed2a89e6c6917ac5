"""Policies on the teacher's features, one class at a time: herding, k_center, d2.

Each is a function from the points of one class to their order. The inner products of a class are in memory at once, on
a GPU if there is one. Ties go to the smaller id.
"""

import heapq
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prunekd.pruning.policies.ordering import by_difficulty, take_turns
from prunekd.pruning.policies.policy import Policy

Progress = Callable[[int, int], None]
LARGEST_CLASS = 20_000  # samples; their inner products take 1.6 GB


def rank_herding(
    scores: np.ndarray | None,
    labels: np.ndarray,
    ids: np.ndarray,
    seed: int,
    *,
    balance: str,
    features: np.ndarray,
    progress: Progress,
) -> np.ndarray:
    """Ids of samples whose mean feature follows that of their class most closely; see `policy.Rank`.

    Welling, "Herding dynamical weights to learn", ICML 2009: w starts at the mean mu of the class's features; the next
    sample is the one with the largest inner product with w, and w grows by mu - h (equations 4 and 5). iCaRL (CVPR
    2017) uses it for exemplars.
    """
    order = [rows[_herd(points)] for rows, points in _classes("herding", balance, features, labels, progress)]
    return ids[take_turns(np.concatenate(order), labels, balance)]


def _herd(points: Tensor) -> list[int]:
    """Positions (m,) of a class's points, float32 (m, F), in herding order."""
    products = (points @ points.T).double()
    to_mean = products.mean(dim=0)
    weight = to_mean.clone()  # <w, h_i> of every sample
    order = []
    for _ in range(len(points)):
        best = int(weight.argmax())
        order.append(best)
        weight += to_mean - products[best]
        to_mean[best] = -torch.inf  # taken: its weight stays at the bottom
        weight[best] = -torch.inf
    return order


def rank_k_center(
    scores: np.ndarray | None,
    labels: np.ndarray,
    ids: np.ndarray,
    seed: int,
    *,
    balance: str,
    features: np.ndarray,
    progress: Progress,
) -> np.ndarray:
    """Ids of samples that cover their class, farthest first; see `policy.Rank`.

    Sener and Savarese (ICLR 2018), algorithm 1: the first sample is the one nearest to the mean feature; each next one
    is the farthest from all chosen so far, in Euclidean distance.
    """
    order = [rows[_cover(points)] for rows, points in _classes("k_center", balance, features, labels, progress)]
    return ids[take_turns(np.concatenate(order), labels, balance)]


def _cover(points: Tensor) -> list[int]:
    """Positions (m,) of a class's points, float32 (m, F), the farthest from those before it first."""
    distances = _squared_distances(points)
    wide = points.double()
    order = [int((wide - wide.mean(dim=0)).square().sum(dim=1).argmin())]
    nearest = distances[order[0]].clone()
    nearest[order[0]] = -torch.inf
    for _ in range(len(points) - 1):
        chosen = int(nearest.argmax())
        order.append(chosen)
        nearest = torch.minimum(nearest, distances[chosen])
        nearest[chosen] = -torch.inf
    return order


def rank_d2(
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
    """Ids of difficult samples far from each other, by messages over a graph of neighbours; see `policy.Rank`.

    Maharana et al. (ICLR 2024): each sample starts from its difficulty, scaled to [0, 1], and adds those of its
    `neighbours` nearest samples, each times exp(-d^2) (forward messages, equation 2). Then the sample of the highest
    value is taken, and its neighbours lose exp(-gamma d^2) of the value it had (reverse messages, equation 4), again
    and again. Distances are between features of unit length. The graph is that of the class; the authors' spans all
    classes, which takes n^2 distances.

    Raises:
        ValueError: neighbours not a whole number >= 1, gamma negative, or scores that are NaN or infinite.
    """
    assert scores is not None
    by_class = _classes("d2", balance, features, labels, progress)
    if neighbours < 1 or neighbours != int(neighbours):
        raise ValueError(f"d2 needs a whole number of neighbours, at least 1, not {neighbours}")
    if gamma < 0:
        raise ValueError(f"d2 needs gamma >= 0, not {gamma}")
    by_difficulty(scores, ids)  # refuses NaN
    if not np.isfinite(scores).all():
        raise ValueError("d2 adds scores up and needs finite ones; choose another score")
    span = max(float(scores.max() - scores.min()), 1e-12)
    difficulty = ((scores - scores.min()) / span).astype(np.float64)
    order = [rows[_spread(points, difficulty[rows], int(neighbours), gamma)] for rows, points in by_class]
    return ids[take_turns(np.concatenate(order), labels, balance)]


def _spread(points: Tensor, difficulty: np.ndarray, neighbours: int, gamma: float) -> list[int]:
    """Positions (m,) of a class's points, float32 (m, F), as messages choose them; difficulty float64 (m,)."""
    distances = _squared_distances(F.normalize(points)).fill_diagonal_(torch.inf)
    nearest = distances.topk(min(neighbours, len(points) - 1), dim=1, largest=False)
    near, who = nearest.values.cpu().numpy(), nearest.indices.cpu().numpy()
    value = difficulty + (np.exp(-near) * difficulty[who]).sum(axis=1)
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


def _classes(
    policy: str, balance: str, features: np.ndarray, labels: np.ndarray, progress: Progress
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Give (rows int64 (m,), features float32 (m, F) on the CPU or GPU) of each class that has samples.

    Args:
        features: float16 (n, F), rows in ascending order of id.

    Raises:
        ValueError: at once for the balance "none", which a policy that works class by class cannot give; while going
            through them for a class so large that its inner products do not fit memory.
    """
    if balance == "none":
        raise ValueError(f"{policy} works class by class; choose the balance equal, proportional or quota")
    return _each_class(features, labels, progress)


def _each_class(features: np.ndarray, labels: np.ndarray, progress: Progress) -> Iterator[tuple[np.ndarray, Tensor]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    by_class = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels))
    for done, rows in enumerate(np.split(by_class, ends[:-1])):
        if len(rows) > LARGEST_CLASS:
            raise ValueError(
                f"class {done} has {len(rows)} samples; policies on features take at most {LARGEST_CLASS} of a class"
            )
        if len(rows):
            yield rows, torch.from_numpy(features[rows].astype(np.float32)).to(device)
        progress(done + 1, len(ends))


def _squared_distances(points: Tensor) -> Tensor:
    """Squared Euclidean distances (m, m) between the rows of float32 (m, F), exactly 0 on the diagonal."""
    products = (points @ points.T).double()
    squares = products.diagonal()
    return (squares[:, None] + squares[None] - 2 * products).clamp_(min=0).fill_diagonal_(0)


HERDING = Policy(
    name="herding",
    summary="samples whose mean feature follows their class's (--features)",
    rank=rank_herding,
    default_balance="equal",
    needs=("features", "progress"),
)
K_CENTER = Policy(
    name="k_center",
    summary="samples that cover their class, farthest first (--features)",
    rank=rank_k_center,
    default_balance="equal",
    needs=("features", "progress"),
)
D2 = Policy(
    name="d2",
    summary="difficult samples far from each other (--features; --set neighbours=5 --set gamma=0.1)",
    rank=rank_d2,
    default_score="el2n",
    default_balance="equal",
    parameters={"neighbours": 5, "gamma": 0.1},
    needs=("features", "progress"),
)
