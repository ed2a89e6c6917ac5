"""Training-dynamics statistics that every loss of this package can return beside the loss."""

from typing import NamedTuple

import torch
from torch import Tensor


class KDStats(NamedTuple):
    """Per-sample statistics of the student's own prediction p = softmax(z_s), at temperature 1; no gradients.

    For soft labels "the label" y is the class with the largest target (the first of equals).
    """

    correct: Tensor
    """(B,) bool: y is the student's top class; among equal logits the lowest index wins, as in argmax."""
    p_y: Tensor
    """(B,) float: probability of the label."""
    margin: Tensor
    """(B,) float: z_y - max over k != y of z_k."""
    el2n: Tensor
    """(B,) float: ||p - q||_2 with q the label's one-hot, or the soft label as given; smoothing does not enter."""


def unpack_stats(packed: Tensor) -> KDStats:
    """Turn a kernel's (4, B) statistics into named rows."""
    correct, p_y, margin, el2n = packed.detach().unbind(0)
    return KDStats(correct > 0.5, p_y, margin, el2n)


def reference_stats(student: Tensor, labels: Tensor) -> KDStats:
    """The statistics by their definitions, in the dtype of `student` (B, C); labels (B,) int or (B, C) float."""
    student = student.detach()
    num_classes = student.shape[1]
    soft = labels.dim() == 2
    target = labels.detach().to(student.dtype) if soft else torch.zeros_like(student)
    y = target.argmax(1, keepdim=True) if soft else labels.long().unsqueeze(1)
    if not soft:
        target = target.scatter(1, y, 1.0)
    columns = torch.arange(num_classes, device=student.device)
    others = student.masked_fill(columns == y, float("-inf"))
    before = others.masked_fill(columns > y, float("-inf")).amax(1)
    z_y = student.gather(1, y).squeeze(1)
    p = torch.softmax(student, 1)
    return KDStats(
        correct=(z_y >= others.amax(1)) & (z_y > before),
        p_y=p.gather(1, y).squeeze(1),
        margin=z_y - others.amax(1),
        el2n=(p - target).square().sum(1).sqrt(),
    )
