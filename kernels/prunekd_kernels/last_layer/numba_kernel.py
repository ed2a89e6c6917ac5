"""`teacher_head_kd` for CPUs: the head's matrix product in blocks of rows, each consumed by `kd_loss`'s kernel.

The product is the BLAS's that PyTorch calls; what is saved is the (B, C) matrix of teacher logits, of which one block
lives at a time. Backward makes the blocks again.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .._inputs import Inputs
from .._stats import DENSE_ROW_STATS
from ..dense import numba_kernel as dense

_BLOCK_ELEMENTS = 1 << 21  # of teacher logits at a time: 8 MiB in float32, enough rows for a fast matrix product
_MIN_ROWS = 16


def forward(inputs: Inputs, want_stats: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (B,), row statistics (DENSE_ROW_STATS, B) and training statistics (4, B) or (4, 0), all float32."""
    rows = inputs.student.shape[0]
    loss = torch.empty(rows)
    row_stats = torch.empty(DENSE_ROW_STATS, rows)
    stats = torch.empty(4, rows if want_stats else 0)
    for rows_of_block, block in _blocks(inputs):
        loss[rows_of_block], row_stats[:, rows_of_block], part = dense.forward(block, want_stats)
        if want_stats:
            stats[:, rows_of_block] = part
    return loss, row_stats, stats


def backward(grad_loss: Tensor, inputs: Inputs, row_stats: Tensor) -> Tensor:
    """Return the gradient of sum(grad_loss * loss) by the student's logits, (B, C) in their dtype, contiguous."""
    grad = torch.empty(inputs.student.shape, dtype=inputs.student.dtype)
    for rows, block in _blocks(inputs):
        dense.backward(grad_loss[rows], block, row_stats[:, rows].contiguous(), out=grad[rows])
    return grad


def _blocks(inputs: Inputs) -> Iterator[tuple[slice, Inputs]]:
    """Yield row ranges with the inputs of a dense teacher; the memory of its logits is used again for the next."""
    features, weight, bias = inputs.teacher
    assert features is not None
    assert weight is not None
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
        yield block, inputs._replace(
            student=inputs.student[block], labels=inputs.labels[block], teacher=(logits,),
            weight=None if inputs.weight is None else inputs.weight[block],
        )  # fmt: skip
