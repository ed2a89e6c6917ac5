"""`kd_loss` for CPUs, compiled by Numba: each row is read from cache by a few vectorised loops, no (B, C) temporaries.

Forward leaves seven floats per row (`ROW_STATS`), from which backward recomputes the softmaxes: gradients made in the
forward pass would be rounded to 16 bits before a GradScaler's factor reaches them.
"""

# mypy: disallow-untyped-defs=False

import numpy as np
import torch
from torch import Tensor

from .._numba_math import REDUCTION, STRICT, exp, flat_view, jit, load, maximum, store
from .._parallel import run_rows

ROW_STATS = 7  # max_s, 1/sum_1, 1/sum_T, max_t (after scaling), 1/sum_t, scale of the teacher's row, mass of the label
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


def forward(
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor,
    weight: Tensor | None,
    class_scale: Tensor | None,
    alpha: float,
    temperature: float,
    label_smoothing: float,
    want_stats: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (B,), row statistics (ROW_STATS, B) and training statistics (4, B) or (4, 0), all float32."""
    rows, columns = student.shape
    loss = torch.empty(rows)
    row_stats = torch.empty(ROW_STATS, rows)
    stats = torch.empty(4, rows if want_stats else 0)
    run_rows(
        _forward_rows, rows, 3 * columns, columns,
        *matrix_arguments(student), *_optional_matrix(teacher, student), *label_arguments(labels),
        *vector_arguments(weight), *vector_arguments(class_scale),
        np.float32(alpha), np.float32(temperature), np.float32(label_smoothing),
        loss.numpy(), row_stats.numpy(), want_stats, stats.numpy(),
    )  # fmt: skip
    return loss, row_stats, stats


def backward(
    grad_loss: Tensor,
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor,
    weight: Tensor | None,
    row_stats: Tensor,
    alpha: float,
    temperature: float,
    label_smoothing: float,
    out: Tensor | None = None,
) -> Tensor:
    """Return the gradient of sum(grad_loss * loss) by the student's logits, (B, C) in their dtype, contiguous.

    It is written to `out` if that is given.
    """
    rows, columns = student.shape
    grad = torch.empty(rows, columns, dtype=student.dtype) if out is None else out
    run_rows(
        _backward_rows, rows, 3 * columns, columns, grad_loss.float().contiguous().numpy(),
        *matrix_arguments(student), *_optional_matrix(teacher, student), *label_arguments(labels),
        *vector_arguments(weight), row_stats.numpy(),
        np.float32(alpha), np.float32(temperature), np.float32(label_smoothing), flat_view(grad),
    )  # fmt: skip
    return grad


def matrix_arguments(tensor: Tensor) -> tuple[np.ndarray, int]:
    """A matrix as its memory and row stride."""
    tensor = tensor if tensor.stride(1) == 1 else tensor.contiguous()
    return flat_view(tensor), tensor.stride(0)


def _optional_matrix(tensor: Tensor | None, stand_in: Tensor) -> tuple[bool, np.ndarray, int]:
    if tensor is None:  # an empty array of a type that is compiled anyway
        return False, flat_view(stand_in)[:0], 0
    return True, *matrix_arguments(tensor)


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
def _max_scaled(z, start, columns, scale):
    result = np.float32(-np.inf)
    for j in range(start, start + columns):
        result = maximum(result, load(z, j) * scale)
    return result


@jit(REDUCTION)
def row_sum(z, start, columns):
    """Sum of z[start : start + columns]."""
    total = _ZERO
    for j in range(start, start + columns):
        total += load(z, j)
    return total


@jit(REDUCTION)
def sum_exp(z, start, columns, top, inv_t):
    """Sum of exp((z - top) / T)."""
    total = _ZERO
    for j in range(start, start + columns):
        total += exp((load(z, j) - top) * inv_t)
    return total


@jit(REDUCTION)
def _std(z, start, columns):
    mean = row_sum(z, start, columns) / np.float32(columns)
    total = _ZERO
    for j in range(start, start + columns):
        deviation = load(z, j) - mean
        total += deviation * deviation
    return np.sqrt(total / np.float32(columns - 1))


@jit(REDUCTION)
def _dot(a, a_start, b, b_start, columns, shift):
    """sum a_j * (b_j - shift), where a_j = 0 does not silence an infinite b_j: 0 * inf is NaN in PyTorch too."""
    total = _ZERO
    for j in range(columns):
        total += load(a, a_start + j) * (load(b, b_start + j) - shift)
    return total


@jit(REDUCTION)
def _kd_sums(zs, s, zt, t, columns, top_s, top_t, scale, inv_t):
    """Sums over the row of e_s, e_t and e_t * (teacher - student), the e being exponentials at the temperature."""
    sum_s = _ZERO
    sum_t = _ZERO
    cross = _ZERO
    for j in range(columns):
        d_s = load(zs, s + j) - top_s
        d_t = load(zt, t + j) * scale - top_t
        e_t = exp(d_t * inv_t)
        sum_s += exp(d_s * inv_t)
        sum_t += e_t
        # a class that the teacher rules out (-inf) adds nothing, as in PyTorch's xlogy
        cross += (_ZERO if e_t == _ZERO else e_t * d_t) - e_t * d_s
    return sum_s, sum_t, cross


@jit(REDUCTION)
def _sum_squares(z, first, last, top, inv_sum):
    """Sum of p_j and of p_j^2 over a range of columns."""
    total = _ZERO
    squares = _ZERO
    for j in range(first, last):
        p = exp(load(z, j) - top) * inv_sum
        total += p
        squares += p * p
    return total, squares


@jit(REDUCTION)
def _soft_distance(z, start, q, q_start, columns, top, inv_sum):
    total = _ZERO
    for j in range(columns):
        difference = exp(load(z, start + j) - top) * inv_sum - load(q, q_start + j)
        total += difference * difference
    return total


@jit(STRICT)
def cross_entropy(zs, s, columns, y, top, total, soft, q, q_start, mass, smoothing):
    """sum_j q'_j * (lse - z_j) with smoothed targets q'; everything relative to the row's maximum."""
    log_sum = np.log(total)
    if soft:
        loss = mass * log_sum - _dot(q, q_start, zs, s, columns, top)
    else:
        loss = log_sum - (load(zs, s + y) - top)
    if smoothing > _ZERO:
        mean = row_sum(zs, s, columns) / np.float32(columns) - top
        loss = (_ONE - smoothing) * loss + smoothing * (log_sum - mean)
    return loss


@jit(STRICT)
def row_training_stats(zs, s, columns, y, top, inv_sum, soft, q, q_start, stats, i):
    """Write correct, p_y, margin and el2n of row i."""
    z_y = load(zs, s + y)
    best_before = row_max(zs, s, s + y)
    best_after = row_max(zs, s + y + 1, s + columns)
    stats[0, i] = _ONE if (z_y > best_before and z_y >= best_after) or (y == 0 and z_y >= best_after) else _ZERO
    stats[1, i] = exp(z_y - top) * inv_sum
    stats[2, i] = z_y - maximum(best_before, best_after)
    if soft:
        stats[3, i] = np.sqrt(_soft_distance(zs, s, q, q_start, columns, top, inv_sum))
    else:  # 1 - p_y as the sum of the others: no cancellation when the student is nearly sure
        rest_a, squares_a = _sum_squares(zs, s, s + y, top, inv_sum)
        rest_b, squares_b = _sum_squares(zs, s + y + 1, s + columns, top, inv_sum)
        rest = rest_a + rest_b
        stats[3, i] = np.sqrt(rest * rest + squares_a + squares_b)


@jit(STRICT)
def _forward_rows(
    first, last, columns, zs, stride_s, has_teacher, zt, stride_t, hard, soft, q, stride_q,
    has_weight, weight, has_scale, class_scale, alpha, temperature, smoothing, loss, row_stats, want_stats, stats,
):  # fmt: skip
    inv_t = _ONE / temperature
    for i in range(first, last):
        s, t, r = i * stride_s, i * stride_t, i * stride_q
        y = hard[i]
        top_s = row_max(zs, s, s + columns)
        mass = row_sum(q, r, columns) if soft else _ONE
        top_t, scale, sum_s, sum_t, cross = _ZERO, _ONE, _ONE, _ONE, _ZERO
        if has_teacher:
            if has_scale:
                s_y = _dot(q, r, class_scale, 0, columns, _ZERO) if soft else class_scale[y]
                scale = s_y / _std(zt, t, columns)
                top_t = _max_scaled(zt, t, columns, scale)
            else:
                top_t = row_max(zt, t, t + columns)
            sum_s, sum_t, cross = _kd_sums(zs, s, zt, t, columns, top_s, top_t, scale, inv_t)
        sum_1 = sum_s if has_teacher and temperature == _ONE else sum_exp(zs, s, columns, top_s, _ONE)
        value = cross_entropy(zs, s, columns, y, top_s, sum_1, soft, q, r, mass, smoothing)
        if smoothing > _ZERO:  # smoothing gives every class a share e/C, whatever the label's own mass
            mass = (_ONE - smoothing) * mass + smoothing
        if has_teacher:
            divergence = cross / sum_t * inv_t - np.log(sum_t) + np.log(sum_s)
            value = (_ONE - alpha) * value + alpha * temperature * temperature * divergence
        loss[i] = value * weight[i] if has_weight else value
        row_stats[0, i] = top_s
        row_stats[1, i] = _ONE / sum_1
        row_stats[2, i] = _ONE / sum_s
        row_stats[3, i] = top_t
        row_stats[4, i] = _ONE / sum_t
        row_stats[5, i] = scale
        row_stats[6, i] = mass
        if want_stats:
            row_training_stats(zs, s, columns, y, top_s, _ONE / sum_1, soft, q, r, stats, i)


@jit(STRICT)
def _grad_ce(zs, s, columns, top, factor, soft, q, q_start, c_q, c_0, grad, g):
    """grad_j = factor * e_j - c_q * q_j - c_0 (no KD term, or T = 1 and no teacher row)."""
    if soft:
        for j in range(columns):
            store(grad, g + j, factor * exp(load(zs, s + j) - top) - c_q * load(q, q_start + j) - c_0)
    else:
        for j in range(columns):
            store(grad, g + j, factor * exp(load(zs, s + j) - top) - c_0)


@jit(STRICT)
def _kd_part(zs, s, zt, t, j, tops, inv_t, factors, same):
    """The gradient at column j without the label: both softmaxes of the student less the teacher's."""
    d_s = load(zs, s + j) - tops[0]
    e_t = exp((load(zt, t + j) * tops[2] - tops[1]) * inv_t)
    if same:
        return (factors[0] + factors[1]) * exp(d_s) - factors[2] * e_t
    return factors[0] * exp(d_s) + factors[1] * exp(d_s * inv_t) - factors[2] * e_t


@jit(STRICT)
def _grad_kd(zs, s, zt, t, columns, tops, inv_t, factors, same, soft, q, q_start, c_q, c_0, grad, g):
    if soft:
        for j in range(columns):
            part = _kd_part(zs, s, zt, t, j, tops, inv_t, factors, same)
            store(grad, g + j, part - c_q * load(q, q_start + j) - c_0)
    elif same:
        for j in range(columns):
            store(grad, g + j, _kd_part(zs, s, zt, t, j, tops, inv_t, factors, True) - c_0)
    else:
        for j in range(columns):
            store(grad, g + j, _kd_part(zs, s, zt, t, j, tops, inv_t, factors, False) - c_0)


@jit(STRICT)
def _backward_rows(
    first, last, columns, grad_loss, zs, stride_s, has_teacher, zt, stride_t, hard, soft, q, stride_q,
    has_weight, weight, row_stats, alpha, temperature, smoothing, grad,
):  # fmt: skip
    inv_t = _ONE / temperature
    share_ce = _ONE - alpha if has_teacher else _ONE
    for i in range(first, last):
        s, t, r, g, y = i * stride_s, i * stride_t, i * stride_q, i * columns, hard[i]
        upstream = grad_loss[i] * weight[i] if has_weight else grad_loss[i]
        ce = upstream * share_ce
        kd = upstream * alpha * temperature
        c_q, c_0 = ce * (_ONE - smoothing), ce * smoothing / np.float32(columns)
        top_s = row_stats[0, i]
        factor = ce * row_stats[6, i] * row_stats[1, i]
        tops = (top_s, row_stats[3, i], row_stats[5, i])
        factors = (factor, kd * row_stats[2, i], kd * row_stats[4, i])
        if has_teacher:
            _grad_kd(zs, s, zt, t, columns, tops, inv_t, factors, temperature == _ONE, soft, q, r, c_q, c_0, grad, g)
            at_label = _kd_part(zs, s, zt, t, y, tops, inv_t, factors, temperature == _ONE)
        else:
            _grad_ce(zs, s, columns, top_s, factor, soft, q, r, c_q, c_0, grad, g)
            at_label = factor * exp(load(zs, s + y) - top_s)
        if not soft:  # computed anew rather than corrected: a 16-bit gradient is rounded once
            store(grad, g + y, at_label - c_0 - c_q)
