"""`kd_loss_sparse` for CPUs: K terms for the teacher, beside the loops over the student's row."""

# mypy: disallow-untyped-defs=False

from functools import partial
from typing import NamedTuple

import numpy as np
from numba.extending import overload

from .. import _numba_loss
from .._inputs import Inputs, label_scale
from .._numba_loss import is_teacher, teacher_terms, write_gradient
from .._numba_math import STRICT, exp, jit, load, maximum, store
from .._numba_rows import ONE, ZERO, row_sum, sum_exp, vector_arguments
from .._stats import (
    STUDENT_INV_SUM_T,
    TEACHER_INV_SUM,
    TEACHER_MASS,
    TEACHER_SCALE,
    TEACHER_SHARE,
    TEACHER_SHIFT,
    TOPK_ROW_STATS,
)


class TopKTeacher(NamedTuple):
    """The K largest logits of each sample, and their classes."""

    ids: np.ndarray
    logits: np.ndarray
    spread: bool
    logsumexp: np.ndarray
    has_scale: bool
    scale: np.ndarray


def topk_teacher(inputs: Inputs) -> TopKTeacher:
    """Return the teacher as compiled code takes it."""
    ids, logits, logsumexp, std = inputs.teacher
    assert ids is not None
    assert logits is not None
    scale = None if inputs.class_scale is None or std is None else label_scale(inputs.class_scale, inputs.labels) / std
    return TopKTeacher(
        ids.long().contiguous().numpy(), logits.detach().float().contiguous().numpy(),
        *vector_arguments(logsumexp), *vector_arguments(scale),
    )  # fmt: skip


forward = partial(_numba_loss.forward, topk_teacher, TOPK_ROW_STATS)
backward = partial(_numba_loss.backward, topk_teacher)


def _topk_terms(teacher, i, last, row, label, temperature, row_stats):
    zs, s, columns, top_s = row
    ids, values, kept = teacher.ids, teacher.logits, teacher.ids.shape[1]
    inv_t = ONE / temperature
    sum_1 = sum_exp(zs, s, columns, top_s, ONE)
    sum_s = sum_1 if temperature == ONE else sum_exp(zs, s, columns, top_s, inv_t)
    scale = teacher.scale[i] if teacher.has_scale else ONE
    shift, inv_k, logs = ZERO, ONE, ZERO
    if teacher.spread:
        shift = teacher.logsumexp[i]
    else:
        top_t = np.float32(-np.inf)
        for k in range(kept):
            top_t = maximum(top_t, values[i, k])
        shift = top_t * scale * inv_t
        total = ZERO
        for k in range(kept):
            total += exp(values[i, k] * scale * inv_t - shift)
        inv_k, logs = ONE / total, np.log(total)
    mass_t = ZERO
    for k in range(kept):
        mass_t += exp(values[i, k] * scale * inv_t - shift) * inv_k
    missing = max(ONE - mass_t, ZERO) if teacher.spread and columns > kept else ZERO
    share = missing / np.float32(max(columns - kept, 1))
    divergence = ZERO
    if share > ZERO:  # every class at the even share; the kept ones are corrected below
        even = row_sum(zs, s, columns) - np.float32(columns) * top_s
        divergence = missing * np.log(share) - share * inv_t * even
    for k in range(kept):
        log_p = values[i, k] * scale * inv_t - shift - logs
        p = exp(values[i, k] * scale * inv_t - shift) * inv_k
        divergence += (ZERO if p == ZERO else p * log_p) - (p - share) * (load(zs, s + ids[i, k]) - top_s) * inv_t
    mass_t += missing
    row_stats[TEACHER_SHIFT, i] = shift
    row_stats[TEACHER_INV_SUM, i] = inv_k
    row_stats[TEACHER_SCALE, i] = scale
    row_stats[TEACHER_MASS, i] = mass_t
    row_stats[TEACHER_SHARE, i] = share
    return sum_1, sum_s, divergence + mass_t * np.log(sum_s)


@jit(STRICT)
def _student_part(z, top, inv_t, factor_1, factor_t):
    if inv_t == ONE:
        return (factor_1 + factor_t) * exp(z - top)
    return factor_1 * exp(z - top) + factor_t * exp((z - top) * inv_t)


@jit(STRICT)
def _grad_row(zs, s, columns, top, inv_t, factor_1, factor_t, soft, q, r, c_q, c_0, grad, g):
    if soft:
        for j in range(columns):
            part = _student_part(load(zs, s + j), top, inv_t, factor_1, factor_t)
            store(grad, g + j, part - c_q * load(q, r + j) - c_0)
    else:
        for j in range(columns):
            store(grad, g + j, _student_part(load(zs, s + j), top, inv_t, factor_1, factor_t) - c_0)


def _topk_gradient(teacher, i, row, label, temperature, factors, row_stats, grad):
    zs, s, columns, top = row
    y, soft, q, r = label
    factor_1, kd, c_q, c_0 = factors
    ids, values, g = teacher.ids, teacher.logits, i * columns
    inv_t = ONE / temperature
    even = kd * row_stats[TEACHER_SHARE, i]
    factor_t = kd * row_stats[TEACHER_MASS, i] * row_stats[STUDENT_INV_SUM_T, i]
    _grad_row(zs, s, columns, top, inv_t, factor_1, factor_t, soft, q, r, c_q, c_0 + even, grad, g)
    # entries with a term of their own are computed anew: a 16-bit gradient is rounded once
    if not soft:
        part = _student_part(load(zs, s + y), top, inv_t, factor_1, factor_t)
        store(grad, g + y, part - c_q - c_0 - even)
    scale, shift, inv_k = row_stats[TEACHER_SCALE, i], row_stats[TEACHER_SHIFT, i], row_stats[TEACHER_INV_SUM, i]
    for k in range(ids.shape[1]):
        j = ids[i, k]
        target = load(q, r + j) if soft else (ONE if j == y else ZERO)
        p = exp(values[i, k] * scale * inv_t - shift) * inv_k
        part = _student_part(load(zs, s + j), top, inv_t, factor_1, factor_t)
        store(grad, g + j, part - c_q * target - c_0 - kd * p)


@overload(teacher_terms, jit_options={"forceinline": True})
def _terms(teacher, i, last, row, label, temperature, row_stats):
    return _topk_terms if is_teacher(teacher, TopKTeacher) else None


@overload(write_gradient, jit_options={"forceinline": True})
def _write(teacher, i, row, label, temperature, factors, row_stats, grad):
    return _topk_gradient if is_teacher(teacher, TopKTeacher) else None
