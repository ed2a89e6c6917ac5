"""prototype@1: distance of a sample's features to the mean of its class, ||h - mean_c||_2.

The supervised prototypes of Sorscher et al. (NeurIPS 2022, appendix on supervised prototypes), in Euclidean distance.
"""

import numpy as np
import torch

from prunekd.pruning.scores.features import blocks
from prunekd.pruning.scores.score import FeatureScore


def compute(features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """See FeatureScore."""
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64)
    for part in blocks(features):
        sums.index_add_(0, torch.from_numpy(labels[part]), torch.from_numpy(features[part].astype(np.float64)))
    counts = np.bincount(labels, minlength=num_classes)
    return distances(features, labels, sums.numpy() / np.maximum(counts, 1)[:, None])


def distances(features: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Euclidean distance of each row of `features` (n, F) to the centre of its class, in `centres` (C, F): float32."""
    found = np.empty(len(features), dtype=np.float32)
    for part in blocks(features):
        found[part] = np.linalg.norm(features[part].astype(np.float64) - centres[labels[part]], axis=1)
    return found


SCORE = FeatureScore(name="prototype", version=1, hard_end="high", compute=compute)
