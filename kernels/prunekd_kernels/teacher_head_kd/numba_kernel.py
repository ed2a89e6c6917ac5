"""`teacher_head_kd` for CPUs: the head's matrix product in blocks of rows, each consumed by `kd_loss`'s Numba kernel.

The product is the BLAS's that PyTorch calls; what is saved is the (B, C) matrix of teacher logits, of which one block
lives at a time. Backward makes the blocks again.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..kd_loss import numba_kernel as dense

_BLOCK_ELEMENTS = 1 << 21  # of teacher logits at a time: 8 MiB in float32, enough rows for a fast matrix product
_MIN_ROWS = 16


def forward(
    student: Tensor,
    features: Tensor,
    head_weight: Tensor,
    head_bias: Tensor | None,
    labels: Tensor,
    weight: Tensor | None,
    class_scale: Tensor | None,
    alpha: float,
    temperature: float,
    label_smoothing: float,
    want_stats: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (B,), row statistics (dense.ROW_STATS, B) and training statistics (4, B) or (4, 0), all float32."""
    rows = student.shape[0]
    loss = torch.empty(rows)
    row_stats = torch.empty(dense.ROW_STATS, rows)
    stats = torch.empty(4, rows if want_stats else 0)
    for block, teacher in _teacher_blocks(features, head_weight, head_bias):
        loss[block], row_stats[:, block], part = dense.forward(
            student[block], teacher, labels[block], None if weight is None else weight[block], class_scale,
            alpha, temperature, label_smoothing, want_stats,
        )  # fmt: skip
        if want_stats:
            stats[:, block] = part
    return loss, row_stats, stats


def backward(
    grad_loss: Tensor,
    student: Tensor,
    features: Tensor,
    head_weight: Tensor,
    head_bias: Tensor | None,
    labels: Tensor,
    weight: Tensor | None,
    row_stats: Tensor,
    alpha: float,
    temperature: float,
    label_smoothing: float,
) -> Tensor:
    """Return the gradient of sum(grad_loss * loss) by the student's logits, (B, C) in their dtype, contiguous."""
    grad = torch.empty(student.shape, dtype=student.dtype)
    for block, teacher in _teacher_blocks(features, head_weight, head_bias):
        dense.backward(
            grad_loss[block], student[block], teacher, labels[block], None if weight is None else weight[block],
            row_stats[:, block].contiguous(), alpha, temperature, label_smoothing, out=grad[block],
        )  # fmt: skip
    return grad


def _teacher_blocks(features: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Yield row ranges with their teacher logits; the memory of a block is used again for the next."""
    rows, classes = features.shape[0], weight.shape[0]
    features, weight_t = features.detach(), weight.detach().t()
    height = min(rows, max(_MIN_ROWS, _BLOCK_ELEMENTS // classes))
    buffer = torch.empty(height, classes, dtype=features.dtype)
    for first in range(0, rows, max(height, 1)):
        block = slice(first, min(first + height, rows))
        logits = buffer[: block.stop - block.start]
        torch.mm(features[block], weight_t, out=logits)
        if bias is not None:
            logits += bias.detach()
        yield block, logits
