"""Scores of all samples' features together, computed from the file that a pass of the teacher wrote.

A new score is a function with an entry in FEATURE_SCORES. h are a sample's features, c its class.
"""

import numpy as np
import torch

from prunekd.pruning.scores.features import blocks
from prunekd.pruning.scores.score import FeatureScore

SSP_PASSES = 3  # passes of mini-batch k-means over the features


def prototype(features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """prototype@1: ||h - mean_c||_2, the distance of a sample's features to the mean of its class.

    The supervised prototypes of Sorscher et al. (NeurIPS 2022, appendix on supervised prototypes), in Euclidean
    distance.
    """
    sums = torch.zeros(num_classes, features.shape[1], dtype=torch.float64)
    for part in blocks(features):
        sums.index_add_(0, torch.from_numpy(labels[part]), torch.from_numpy(features[part].astype(np.float64)))
    counts = np.bincount(labels, minlength=num_classes)
    return _distances(features, labels, sums.numpy() / np.maximum(counts, 1)[:, None])


def moderate(features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """moderate@1: ||h - median_c||_2, the distance to the median of the class, taken in each dimension.

    Moderate coreset (Xia et al., ICLR 2023), whose policy keeps the samples with distances around the middle. One class
    is in memory at a time.
    """
    medians = np.zeros((num_classes, features.shape[1]))
    by_class = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=num_classes))
    for c, rows in enumerate(np.split(by_class, ends[:-1])):
        if len(rows):
            medians[c] = np.median(features[np.sort(rows)].astype(np.float32), axis=0)
    return _distances(features, labels, medians)


def ssp(features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """ssp@1: cosine distance of a sample's features to the nearest k-means centroid, without looking at labels.

    The self-supervised prototypes of Sorscher et al. (NeurIPS 2022, section 6) on the teacher's features: k-means with
    as many clusters as classes on features of unit length, by scikit-learn's mini-batch version, seeded.

    Raises:
        ValueError: fewer samples than classes.
    """
    from sklearn.cluster import MiniBatchKMeans  # takes a second to import; no other score needs it

    if len(features) < num_classes:
        raise ValueError(f"ssp makes {num_classes} clusters, one per class, of only {len(features)} samples")
    size = max(4096, 4 * num_classes)
    means = MiniBatchKMeans(num_classes, random_state=seed % 2**32, batch_size=size, n_init=1)
    order = np.random.default_rng(seed).permutation(len(features))
    for _ in range(SSP_PASSES):
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            if len(rows) >= num_classes:
                means.partial_fit(_unit(features[np.sort(rows)]))
    centres = _unit(means.cluster_centers_)
    found = np.empty(len(features), dtype=np.float32)
    for part in blocks(features):
        found[part] = 1 - (_unit(features[part]) @ centres.T).max(axis=1)
    return found


def _distances(features: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Euclidean distance of each row of `features` (n, F) to the centre of its class, in `centres` (C, F): float32."""
    found = np.empty(len(features), dtype=np.float32)
    for part in blocks(features):
        found[part] = np.linalg.norm(features[part].astype(np.float64) - centres[labels[part]], axis=1)
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


FEATURE_SCORES: dict[str, FeatureScore] = {
    score.name: score
    for score in (
        FeatureScore(name="prototype", version=1, hard_end="high", compute=prototype),
        FeatureScore(name="moderate", version=1, hard_end="high", compute=moderate),
        FeatureScore(name="ssp", version=1, hard_end="high", compute=ssp),
    )
}
