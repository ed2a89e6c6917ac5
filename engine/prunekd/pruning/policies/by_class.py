"""What policies on features share: one class at a time, its inner products at once, on a GPU if there is one."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

Progress = Callable[[int, int], None]
LARGEST_CLASS = 20_000  # samples; their inner products take 1.6 GB


def classes(features: np.ndarray, labels: np.ndarray, progress: Progress) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield (rows int64 (m,), features float32 (m, F) on the CPU or GPU) of each class that has samples.

    Raises:
        ValueError: a class so large that its inner products do not fit memory.
    """
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


def squared_distances(points: Tensor) -> Tensor:
    """Squared Euclidean distances (m, m) between the rows of float32 (m, F), exactly 0 on the diagonal."""
    products = (points @ points.T).double()
    squares = products.diagonal()
    return (squares[:, None] + squares[None] - 2 * products).clamp_(min=0).fill_diagonal_(0)


def require_classes(name: str, balance: str) -> None:
    """Raise ValueError for the balance "none", which a policy that works class by class cannot give."""
    if balance == "none":
        raise ValueError(f"{name} works class by class; choose the balance equal, proportional or quota")
