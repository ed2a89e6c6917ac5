"""What every reader yields."""

from typing import NamedTuple

import torch
from torch import Tensor

from prunekd.input.plan import BatchPlan, EpochPlan


class Batch(NamedTuple):
    """images (B, 3, H, W) in channels-last memory; labels, ids int64 (B,); weights float32 (B,) or None.

    Readers give images as uint8, a Loader as the dtype it was asked for.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    weights: Tensor | None


def make_batch(plan: EpochPlan, batch: BatchPlan, images_nhwc: Tensor) -> Batch:
    """Put the images (B, H, W, 3) of a planned batch together with its labels, ids and weights."""
    return Batch(
        images=images_nhwc.permute(0, 3, 1, 2),
        labels=torch.from_numpy(plan.split.labels[batch.rows]),
        ids=torch.from_numpy(batch.ids.copy()),
        weights=None if batch.weights is None else torch.from_numpy(batch.weights.copy()),
    )
