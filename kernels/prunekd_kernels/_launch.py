"""What every Triton launcher shares: the device guard, tile sizes, arguments. Imports no Triton itself."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._inputs import Inputs

_TILE = 1024  # elements per program for short rows: several rows share a program, so ten classes do not waste a warp
_WIDEST = 4096  # elements of a row held in registers at once; longer rows are walked in a loop


class Tiling(NamedTuple):
    """Rows and columns per program, and warps for them."""

    rows: int
    columns: int
    warps: int


def tiling(num_columns: int) -> Tiling:
    """Tile sizes (powers of two) for rows of `num_columns`."""
    columns = min(_WIDEST, max(16, 1 << (num_columns - 1).bit_length()))
    if columns <= _TILE:
        return Tiling(_TILE // columns, columns, 4)
    return Tiling(1, columns, 8)


def device_guard(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's GPU the current one: Triton launches on that, whichever GPU its arguments are on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def unit_columns(matrix: Tensor) -> Tensor:
    """The matrix itself if its rows are dense (their distance may be anything), else a copy."""
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


def blocks(length: int, size: int) -> int:
    """How many blocks of `size` cover `length`."""
    return -(-length // size)


def loss_arguments(inputs: Inputs, stand_in: Tensor) -> tuple[Any, ...]:
    """The arguments with which every kernel of a loss begins; by position, since Triton takes longer over names.

    They are zs, stride_s, labels, stride_q, weight, alpha, temperature, smoothing, rows, columns, and the constants
    SOFT, HAS_WEIGHT, ALPHA_TENSOR, TEMPERATURE_TENSOR. `stand_in` is any tensor, for what is not there to be read.
    """
    student, labels, weight, _, alpha, temperature, label_smoothing, _ = inputs
    student, soft = unit_columns(student), labels.dim() == 2
    labels = unit_columns(labels) if soft else labels.contiguous()
    return (
        student, student.stride(0), labels, labels.stride(0), stand_in if weight is None else weight.contiguous(),
        alpha, temperature, label_smoothing, *student.shape, soft, weight is not None,
        isinstance(alpha, Tensor), isinstance(temperature, Tensor),
    )  # fmt: skip


def new_results(student: Tensor, num_row_stats: int, want_stats: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for loss (B,), row statistics (num_row_stats, B) and training statistics (4, B) or (4, 0), float32."""
    rows = student.shape[0]
    return (
        student.new_empty(rows, dtype=torch.float32),
        student.new_empty((num_row_stats, rows), dtype=torch.float32),
        student.new_empty((4, rows if want_stats else 0), dtype=torch.float32),
    )
