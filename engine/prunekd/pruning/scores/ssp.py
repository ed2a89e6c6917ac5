"""ssp@1: cosine distance of a sample's features to the nearest k-means centroid, without looking at labels.

The self-supervised prototypes of Sorscher et al. (NeurIPS 2022, section 6) on the teacher's features: k-means with as
many clusters as classes on features of unit length, by scikit-learn's mini-batch version, seeded.
"""

import numpy as np

from prunekd.pruning.scores.features import blocks
from prunekd.pruning.scores.score import FeatureScore

PASSES = 3


def compute(features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """See FeatureScore.

    Raises:
        ValueError: fewer samples than classes.
    """
    from sklearn.cluster import MiniBatchKMeans

    if len(features) < num_classes:
        raise ValueError(f"ssp makes {num_classes} clusters, one per class, of only {len(features)} samples")
    size = max(4096, 4 * num_classes)
    means = MiniBatchKMeans(num_classes, random_state=seed % 2**32, batch_size=size, n_init=1)
    order = np.random.default_rng(seed).permutation(len(features))
    for _ in range(PASSES):
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            if len(rows) >= num_classes:
                means.partial_fit(_unit(features[np.sort(rows)]))
    centres = _unit(means.cluster_centers_)
    found = np.empty(len(features), dtype=np.float32)
    for part in blocks(features):
        found[part] = 1 - (_unit(features[part]) @ centres.T).max(axis=1)
    return found


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


SCORE = FeatureScore(name="ssp", version=1, hard_end="high", compute=compute)
