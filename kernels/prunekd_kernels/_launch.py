"""What every Triton launcher shares: the device guard, tile sizes, arguments. Imports no Triton itself."""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

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
