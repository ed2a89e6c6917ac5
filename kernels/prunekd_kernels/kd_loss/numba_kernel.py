"""`kd_loss` for CPUs, compiled by Numba: each row is read from cache by a few vectorised loops, no (B, C) temporaries.

Forward leaves seven floats per row (`ROW_STATS`), from which backward recomputes the softmaxes: gradients made in the
forward pass would be rounded to 16 bits before a GradScaler's factor reaches them.
"""

# mypy: disallow-untyped-defs=False

import numpy as np
import torch
from torch import Tensor

from .._numba_math import REDUCTION, STRICT, exp, flat_view, jit, load, maximum, prefetch_row, store
from .._numba_rows import (
    ONE,
    ZERO,
    cross_entropy,
    label_arguments,
    matrix_arguments,
    row_dot,
    row_max,
    row_sum,
    row_training_stats,
    sum_exp,
    vector_arguments,
)
from .._parallel import open_region, run_rows

ROW_STATS = 7  # max_s, 1/sum_1, 1/sum_T, max_t (after scaling), 1/sum_t, scale of the teacher's row, mass of the label


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
        _forward_rows, _forward_team, rows, 3 * columns, columns,
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
        _backward_rows, _backward_team, rows, 3 * columns, columns, grad_loss.float().contiguous().numpy(),
        *matrix_arguments(student), *_optional_matrix(teacher, student), *label_arguments(labels),
        *vector_arguments(weight), row_stats.numpy(),
        np.float32(alpha), np.float32(temperature), np.float32(label_smoothing), flat_view(grad),
    )  # fmt: skip
    return grad


def _optional_matrix(tensor: Tensor | None, stand_in: Tensor) -> tuple[bool, np.ndarray, int]:
    if tensor is None:  # an empty array of a type that is compiled anyway
        return False, flat_view(stand_in)[:0], 0
    return True, *matrix_arguments(tensor)


@jit(REDUCTION)
def _max_scaled(z, start, columns, scale):
    result = np.float32(-np.inf)
    for j in range(start, start + columns):
        result = maximum(result, load(z, j) * scale)
    return result


@jit(REDUCTION)
def _std(z, start, columns):
    mean = row_sum(z, start, columns) / np.float32(columns)
    total = ZERO
    for j in range(start, start + columns):
        deviation = load(z, j) - mean
        total += deviation * deviation
    return np.sqrt(total / np.float32(columns - 1))


@jit(STRICT)
def _power(temperature):
    """T if exp(x) is cheap from exp(x / T), by squaring; else 0."""
    return int(temperature) if temperature == ONE or temperature == ONE + ONE or temperature == np.float32(4.0) else 0


@jit(STRICT)
def _exp_from(root, d, power):
    """exp(d), from root = exp(d / T) if `power` is T and not 0."""
    if power == 1:
        return root
    if power == 2:
        return root * root
    if power == 4:
        return (root * root) * (root * root)
    return exp(d)


@jit(REDUCTION)
def _kd_sums(zs, s, zt, t, columns, top_s, top_t, scale, inv_t, power):
    """Sums over the row of exp(student), e_s, e_t and e_t * (teacher - student); e_s and e_t at the temperature."""
    sum_1 = ZERO
    sum_s = ZERO
    sum_t = ZERO
    cross = ZERO
    for j in range(columns):
        d_s = load(zs, s + j) - top_s
        d_t = load(zt, t + j) * scale - top_t
        e_s = exp(d_s * inv_t)
        e_t = exp(d_t * inv_t)
        sum_1 += _exp_from(e_s, d_s, power)
        sum_s += e_s
        sum_t += e_t
        # a class that the teacher rules out (-inf) adds nothing, as in PyTorch's xlogy
        cross += (ZERO if e_t == ZERO else e_t * d_t) - e_t * d_s
    return sum_1, sum_s, sum_t, cross


@jit(STRICT)
def _kd_sums_for(zs, s, zt, t, columns, top_s, top_t, scale, inv_t, power):
    """`_kd_sums` with `power` a constant in each loop."""
    if power == 1:
        return _kd_sums(zs, s, zt, t, columns, top_s, top_t, scale, inv_t, 1)
    if power == 2:
        return _kd_sums(zs, s, zt, t, columns, top_s, top_t, scale, inv_t, 2)
    if power == 4:
        return _kd_sums(zs, s, zt, t, columns, top_s, top_t, scale, inv_t, 4)
    return _kd_sums(zs, s, zt, t, columns, top_s, top_t, scale, inv_t, 0)


@jit(STRICT)
def _forward_rows(
    first, last, columns, zs, stride_s, has_teacher, zt, stride_t, hard, soft, q, stride_q,
    has_weight, weight, has_scale, class_scale, alpha, temperature, smoothing, loss, row_stats, want_stats, stats,
):  # fmt: skip
    inv_t, power = ONE / temperature, _power(temperature)
    for i in range(first, last):
        s, t, r = i * stride_s, i * stride_t, i * stride_q
        y = hard[i]
        top_s = row_max(zs, s, s + columns)
        if i + 1 < last:
            prefetch_row(zs, s + stride_s, columns)
        mass = row_sum(q, r, columns) if soft else ONE
        top_t, scale, sum_s, sum_t, cross = ZERO, ONE, ONE, ONE, ZERO
        if has_teacher:
            if has_scale:
                s_y = row_dot(q, r, class_scale, 0, columns, ZERO) if soft else class_scale[y]
                scale = s_y / _std(zt, t, columns)
                top_t = _max_scaled(zt, t, columns, scale)
            else:
                top_t = row_max(zt, t, t + columns)
            if i + 1 < last:
                prefetch_row(zt, t + stride_t, columns)
            sum_1, sum_s, sum_t, cross = _kd_sums_for(zs, s, zt, t, columns, top_s, top_t, scale, inv_t, power)
        else:
            sum_1 = sum_exp(zs, s, columns, top_s, ONE)
        value = cross_entropy(zs, s, columns, y, top_s, sum_1, soft, q, r, mass, smoothing)
        if smoothing > ZERO:  # smoothing gives every class a share e/C, whatever the label's own mass
            mass = (ONE - smoothing) * mass + smoothing
        if has_teacher:
            divergence = cross / sum_t * inv_t - np.log(sum_t) + np.log(sum_s)
            value = (ONE - alpha) * value + alpha * temperature * temperature * divergence
        loss[i] = value * weight[i] if has_weight else value
        row_stats[0, i] = top_s
        row_stats[1, i] = ONE / sum_1
        row_stats[2, i] = ONE / sum_s
        row_stats[3, i] = top_t
        row_stats[4, i] = ONE / sum_t
        row_stats[5, i] = scale
        row_stats[6, i] = mass
        if want_stats:
            row_training_stats(zs, s, columns, y, top_s, ONE / sum_1, soft, q, r, stats, i)


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
def _kd_part(zs, s, zt, t, j, tops, inv_t, factors, power):
    """The gradient at column j without the label: both softmaxes of the student less the teacher's."""
    d_s = load(zs, s + j) - tops[0]
    e_s = exp(d_s * inv_t)
    e_t = exp((load(zt, t + j) * tops[2] - tops[1]) * inv_t)
    return factors[0] * _exp_from(e_s, d_s, power) + factors[1] * e_s - factors[2] * e_t


@jit(STRICT)
def _grad_kd(zs, s, zt, t, columns, tops, inv_t, factors, power, soft, q, q_start, c_q, c_0, grad, g):
    if soft:
        for j in range(columns):
            part = _kd_part(zs, s, zt, t, j, tops, inv_t, factors, power)
            store(grad, g + j, part - c_q * load(q, q_start + j) - c_0)
    elif power == 1:
        for j in range(columns):
            store(grad, g + j, _kd_part(zs, s, zt, t, j, tops, inv_t, factors, 1) - c_0)
    elif power == 2:
        for j in range(columns):
            store(grad, g + j, _kd_part(zs, s, zt, t, j, tops, inv_t, factors, 2) - c_0)
    elif power == 4:
        for j in range(columns):
            store(grad, g + j, _kd_part(zs, s, zt, t, j, tops, inv_t, factors, 4) - c_0)
    else:
        for j in range(columns):
            store(grad, g + j, _kd_part(zs, s, zt, t, j, tops, inv_t, factors, 0) - c_0)


@jit(STRICT)
def _backward_rows(
    first, last, columns, grad_loss, zs, stride_s, has_teacher, zt, stride_t, hard, soft, q, stride_q,
    has_weight, weight, row_stats, alpha, temperature, smoothing, grad,
):  # fmt: skip
    inv_t, power = ONE / temperature, _power(temperature)
    share_ce = ONE - alpha if has_teacher else ONE
    for i in range(first, last):
        s, t, r, g, y = i * stride_s, i * stride_t, i * stride_q, i * columns, hard[i]
        upstream = grad_loss[i] * weight[i] if has_weight else grad_loss[i]
        ce = upstream * share_ce
        kd = upstream * alpha * temperature
        c_q, c_0 = ce * (ONE - smoothing), ce * smoothing / np.float32(columns)
        top_s = row_stats[0, i]
        factor = ce * row_stats[6, i] * row_stats[1, i]
        tops = (top_s, row_stats[3, i], row_stats[5, i])
        factors = (factor, kd * row_stats[2, i], kd * row_stats[4, i])
        if has_teacher:
            _grad_kd(zs, s, zt, t, columns, tops, inv_t, factors, power, soft, q, r, c_q, c_0, grad, g)
            at_label = _kd_part(zs, s, zt, t, y, tops, inv_t, factors, power)
        else:
            _grad_ce(zs, s, columns, top_s, factor, soft, q, r, c_q, c_0, grad, g)
            at_label = factor * exp(load(zs, s + y) - top_s)
        if not soft:  # computed anew rather than corrected: a 16-bit gradient is rounded once
            store(grad, g + y, at_label - c_0 - c_q)


@jit(STRICT)
def _forward_team(args, num_rows, chunk, size, gomp_parallel):
    open_region(_forward_rows, args, num_rows, chunk, size, gomp_parallel)


@jit(STRICT)
def _backward_team(args, num_rows, chunk, size, gomp_parallel):
    open_region(_backward_rows, args, num_rows, chunk, size, gomp_parallel)
