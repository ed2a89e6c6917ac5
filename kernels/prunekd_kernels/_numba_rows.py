"""Loops over one row that the CPU kernels share, and the arguments by which rows reach compiled code."""

# mypy: disallow-untyped-defs=False, disable-error-code="call-arg,var-annotated"

import numpy as np
import torch
from torch import Tensor

from ._numba_math import REDUCTION, STRICT, exp, flat_view, jit, load, maximum
from ._stats import CORRECT, EL2N, MARGIN, P_Y

ZERO = np.float32(0.0)
ONE = np.float32(1.0)


def matrix_arguments(tensor: Tensor) -> tuple[np.ndarray, int]:
    """A matrix as its memory and row stride."""
    tensor = tensor if tensor.stride(1) == 1 else tensor.contiguous()
    return flat_view(tensor), tensor.stride(0)


def vector_arguments(tensor: Tensor | None) -> tuple[bool, np.ndarray]:
    """Whether there is a vector, and its values as float32."""
    if tensor is None:
        return False, np.empty(0, np.float32)
    return True, tensor.detach().float().contiguous().numpy()


def label_arguments(labels: Tensor) -> tuple[np.ndarray, bool, np.ndarray, int]:
    """Hard labels as int64, and soft ones as a matrix of their own dtype (float64 as float32)."""
    if labels.dim() == 1:
        return labels.long().contiguous().numpy(), False, np.empty(0, np.float32), 0
    labels = labels.float() if labels.dtype == torch.float64 else labels
    return labels.argmax(1).numpy(), True, *matrix_arguments(labels)


@jit(REDUCTION)
def row_max(z, first, last):
    """Maximum of z[first:last], NaN if one is, -inf if there is none."""
    result = np.float32(-np.inf)
    for j in range(first, last):
        result = maximum(result, load(z, j))
    return result


@jit(REDUCTION)
def row_sum(z, start, columns):
    """Sum of z[start : start + columns]."""
    total = ZERO
    for j in range(start, start + columns):
        total += load(z, j)
    return total


@jit(REDUCTION)
def sum_exp(z, start, columns, top, inv_t):
    """Sum of exp((z - top) / T)."""
    total = ZERO
    for j in range(start, start + columns):
        total += exp((load(z, j) - top) * inv_t)
    return total


@jit(REDUCTION)
def row_dot(a, a_start, b, b_start, columns, shift):
    """sum a_j * (b_j - shift), where a_j = 0 does not silence an infinite b_j: 0 * inf is NaN in PyTorch too."""
    total = ZERO
    for j in range(columns):
        total += load(a, a_start + j) * (load(b, b_start + j) - shift)
    return total


@jit(REDUCTION)
def _sum_squares(z, first, last, top, inv_sum):
    """Sum of p_j and of p_j^2 over a range of columns."""
    total = ZERO
    squares = ZERO
    for j in range(first, last):
        p = exp(load(z, j) - top) * inv_sum
        total += p
        squares += p * p
    return total, squares


@jit(REDUCTION)
def _soft_distance(z, start, q, q_start, columns, top, inv_sum):
    total = ZERO
    for j in range(columns):
        difference = exp(load(z, start + j) - top) * inv_sum - load(q, q_start + j)
        total += difference * difference
    return total


@jit(STRICT)
def cross_entropy(zs, s, columns, y, top, total, soft, q, q_start, mass, smoothing):
    """sum_j q'_j * (lse - z_j) with smoothed targets q'; everything relative to the row's maximum."""
    log_sum = np.log(total)
    if soft:
        loss = mass * log_sum - row_dot(q, q_start, zs, s, columns, top)
    else:
        loss = log_sum - (load(zs, s + y) - top)
    if smoothing > ZERO:
        mean = row_sum(zs, s, columns) / np.float32(columns) - top
        loss = (ONE - smoothing) * loss + smoothing * (log_sum - mean)
    return loss


@jit(STRICT)
def row_training_stats(zs, s, columns, y, top, inv_sum, soft, q, q_start, stats, i):
    """Write correct, p_y, margin and el2n of row i."""
    z_y = load(zs, s + y)
    best_before = row_max(zs, s, s + y)
    best_after = row_max(zs, s + y + 1, s + columns)
    stats[CORRECT, i] = ONE if (z_y > best_before and z_y >= best_after) or (y == 0 and z_y >= best_after) else ZERO
    stats[P_Y, i] = exp(z_y - top) * inv_sum
    stats[MARGIN, i] = z_y - maximum(best_before, best_after)
    if soft:
        stats[EL2N, i] = np.sqrt(_soft_distance(zs, s, q, q_start, columns, top, inv_sum))
    else:  # 1 - p_y as the sum of the others: no cancellation when the student is nearly sure
        rest_a, squares_a = _sum_squares(zs, s, s + y, top, inv_sum)
        rest_b, squares_b = _sum_squares(zs, s + y + 1, s + columns, top, inv_sum)
        rest = rest_a + rest_b
        stats[EL2N, i] = np.sqrt(rest * rest + squares_a + squares_b)
