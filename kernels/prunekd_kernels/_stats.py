"""Names for what a loss knows of each row: statistics for the user, and numbers that forward leaves for backward."""

from typing import NamedTuple

import torch
from torch import Tensor

# What forward leaves for backward: rows of a float32 tensor (DENSE_ROW_STATS or TOPK_ROW_STATS, B).
STUDENT_TOP = 0  # the row's maximum
STUDENT_INV_SUM = 1  # 1 / sum exp(z - top)
STUDENT_INV_SUM_T = 2  # 1 / sum exp((z - top) / T)
LABEL_MASS = 3  # sum of the smoothed label
TEACHER_SHIFT = 4  # subtracted before exp: the scaled row's maximum if dense; of top K, a number at the temperature
TEACHER_INV_SUM = 5  # 1 / sum of the teacher's exponentials
TEACHER_SCALE = 6  # factor of the teacher's row (logit reshaping)
DENSE_ROW_STATS = 7
TEACHER_MASS = 7  # sum of the teacher's probabilities
TEACHER_SHARE = 8  # the teacher's probability of each class outside its top K
TOPK_ROW_STATS = 9

# Rows of the (4, B) tensor behind `KDStats`.
CORRECT, P_Y, MARGIN, EL2N = range(4)


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
    """Name the rows of a kernel's (4, B) statistics."""
    rows = packed.detach().unbind(0)
    return KDStats(correct=rows[CORRECT] > 0.5, p_y=rows[P_Y], margin=rows[MARGIN], el2n=rows[EL2N])


def reference_stats(student: Tensor, labels: Tensor) -> Tensor:
    """Compute the statistics (4, B) by their definitions, in the dtype of `student`.

    Args:
        student: (B, C) logits.
        labels: (B,) integers or (B, C) floating.
    """
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
    correct = (z_y >= others.amax(1)) & (z_y > before)
    el2n = (p - target).square().sum(1).sqrt()
    return torch.stack([correct.to(student.dtype), p.gather(1, y).squeeze(1), z_y - others.amax(1), el2n])
