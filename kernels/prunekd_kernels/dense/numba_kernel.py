"""`kd_loss` for CPUs: how a dense teacher's row is read, in the same loops as the student's."""

# mypy: disallow-untyped-defs=False

from functools import partial
from typing import NamedTuple

import numpy as np
from numba.extending import overload

from .. import _numba_loss
from .._inputs import Inputs
from .._numba_loss import is_teacher, teacher_terms, write_gradient
from .._numba_math import REDUCTION, STRICT, exp, jit, load, maximum, prefetch_row, store
from .._numba_rows import ONE, ZERO, matrix_arguments, row_dot, row_max, row_sum, vector_arguments
from .._stats import (
    DENSE_ROW_STATS,
    STUDENT_INV_SUM_T,
    TEACHER_INV_SUM,
    TEACHER_SCALE,
    TEACHER_SHIFT,
)


class DenseTeacher(NamedTuple):
    """A row of logits for each sample."""

    logits: np.ndarray
    stride: int
    has_scale: bool
    class_scale: np.ndarray


def dense_teacher(inputs: Inputs) -> DenseTeacher | None:
    """Return the teacher as compiled code takes it, or None."""
    (teacher,) = inputs.teacher
    if teacher is None:
        return None
    return DenseTeacher(*matrix_arguments(teacher), *vector_arguments(inputs.class_scale))


forward = partial(_numba_loss.forward, dense_teacher, DENSE_ROW_STATS)
backward = partial(_numba_loss.backward, dense_teacher)


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


def _dense_terms(teacher, i, last, row, label, temperature, row_stats):
    zs, s, columns, top_s = row
    y, soft, q, r = label
    zt, t = teacher.logits, i * teacher.stride
    top_t, scale = ZERO, ONE
    if teacher.has_scale:
        s_y = row_dot(q, r, teacher.class_scale, 0, columns, ZERO) if soft else teacher.class_scale[y]
        scale = s_y / _std(zt, t, columns)
        top_t = _max_scaled(zt, t, columns, scale)
    else:
        top_t = row_max(zt, t, t + columns)
    if i + 1 < last:
        prefetch_row(zt, t + teacher.stride, columns)
    inv_t = ONE / temperature
    power = _power(temperature)
    sum_1, sum_s, sum_t, cross = _kd_sums_for(zs, s, zt, t, columns, top_s, top_t, scale, inv_t, power)
    row_stats[TEACHER_SHIFT, i] = top_t
    row_stats[TEACHER_INV_SUM, i] = ONE / sum_t
    row_stats[TEACHER_SCALE, i] = scale
    return sum_1, sum_s, cross / sum_t * inv_t - np.log(sum_t) + np.log(sum_s)


@jit(STRICT)
def _kd_part(zs, s, zt, t, j, tops, inv_t, factors, power):
    """The gradient at column j without the label: both softmaxes of the student less the teacher's."""
    d_s = load(zs, s + j) - tops[0]
    e_s = exp(d_s * inv_t)
    e_t = exp((load(zt, t + j) * tops[2] - tops[1]) * inv_t)
    return factors[0] * _exp_from(e_s, d_s, power) + factors[1] * e_s - factors[2] * e_t


@jit(STRICT)
def _grad_kd(zs, s, zt, t, columns, tops, inv_t, factors, power, soft, q, q_start, c_q, c_0, grad, g):
    """One loop for each constant `power`: with a variable one, LLVM does not vectorise it."""
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


def _dense_gradient(teacher, i, row, label, temperature, factors, row_stats, grad):
    zs, s, columns, top_s = row
    y, soft, q, r = label
    factor, kd, c_q, c_0 = factors
    zt, t, g = teacher.logits, i * teacher.stride, i * columns
    inv_t, power = ONE / temperature, _power(temperature)
    tops = (top_s, row_stats[TEACHER_SHIFT, i], row_stats[TEACHER_SCALE, i])
    parts = (factor, kd * row_stats[STUDENT_INV_SUM_T, i], kd * row_stats[TEACHER_INV_SUM, i])
    _grad_kd(zs, s, zt, t, columns, tops, inv_t, parts, power, soft, q, r, c_q, c_0, grad, g)
    if not soft:  # computed anew rather than corrected: a 16-bit gradient is rounded once
        store(grad, g + y, _kd_part(zs, s, zt, t, y, tops, inv_t, parts, power) - c_0 - c_q)


@overload(teacher_terms, jit_options={"forceinline": True})
def _terms(teacher, i, last, row, label, temperature, row_stats):
    return _dense_terms if is_teacher(teacher, DenseTeacher) else None


@overload(write_gradient, jit_options={"forceinline": True})
def _write(teacher, i, row, label, temperature, factors, row_stats, grad):
    return _dense_gradient if is_teacher(teacher, DenseTeacher) else None
