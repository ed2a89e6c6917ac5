"""moderate@1: distance of a sample's features to the median of its class, ||h - median_c||_2, per dimension the median.

Moderate coreset (Xia et al., ICLR 2023), whose policy keeps the samples with distances around the middle.
"""

import numpy as np

from prunekd.pruning.scores.prototype import distances
from prunekd.pruning.scores.score import FeatureScore


def compute(features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """See FeatureScore; one class is in memory at a time."""
    medians = np.zeros((num_classes, features.shape[1]))
    by_class = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    for c, rows in enumerate(np.split(by_class, ends[:-1])):
        if len(rows):
            medians[c] = np.median(features[np.sort(rows)].astype(np.float32), axis=0)
    return distances(features, labels, medians)


SCORE = FeatureScore(name="moderate", version=1, hard_end="high", compute=compute)
