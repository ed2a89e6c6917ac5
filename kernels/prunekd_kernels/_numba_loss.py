"""The distillation losses for CPUs, compiled by Numba: each row is read from cache by a few vectorised loops.

There are no (B, C) temporaries. Forward leaves a few numbers per row, from which backward recomputes the softmaxes:
gradients made in the forward pass would be rounded to 16 bits before a GradScaler's factor reaches them.

A teacher is a NamedTuple of what its rows are read from, or None. Its type chooses, when the kernels are compiled, the
implementations of `teacher_terms` and `write_gradient`, which stand beside it.
"""

# mypy: disallow-untyped-defs=False, disable-error-code="call-arg"

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from ._inputs import Inputs
from ._numba_math import STRICT, exp, flat_view, jit, load, prefetch_row, store
from ._numba_rows import (
    ONE,
    ZERO,
    cross_entropy,
    label_arguments,
    matrix_arguments,
    row_max,
    row_sum,
    row_training_stats,
    sum_exp,
    vector_arguments,
)
from ._parallel import open_region, planned
from ._stats import (
    LABEL_MASS,
    STUDENT_INV_SUM,
    STUDENT_INV_SUM_T,
    STUDENT_TOP,
    TEACHER_INV_SUM,
    TEACHER_SCALE,
    TEACHER_SHIFT,
)

_PASSES = 3  # loops over a row, about: work per element when threads are counted


def forward(
    rows_of_teacher: Callable[[Inputs], Any], num_row_stats: int, inputs: Inputs, want_stats: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (B,), row statistics (num_row_stats, B) and training statistics (4, B) or (4, 0), all float32."""
    rows, columns = inputs.student.shape
    loss, row_stats = torch.empty(rows), torch.empty(num_row_stats, rows)
    stats = torch.empty(4, rows if want_stats else 0)
    call = planned(_forward_entry, rows, _PASSES * columns)
    call.run(
        *call.plan, (*matrix_arguments(inputs.student), columns), label_arguments(inputs.labels),
        vector_arguments(inputs.weight), _numbers(inputs),
        (loss.numpy(), row_stats.numpy(), want_stats, stats.numpy()), rows_of_teacher(inputs),
    )  # fmt: skip
    return loss, row_stats, stats


def backward(
    rows_of_teacher: Callable[[Inputs], Any],
    grad_loss: Tensor,
    inputs: Inputs,
    row_stats: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """Return the gradient of sum(grad_loss * loss) by the student's logits, (B, C) in their dtype, contiguous.

    It is written to `out` if that is given.
    """
    rows, columns = inputs.student.shape
    grad = torch.empty(rows, columns, dtype=inputs.student.dtype) if out is None else out
    call = planned(_backward_entry, rows, _PASSES * columns)
    call.run(
        *call.plan, (*matrix_arguments(inputs.student), columns), label_arguments(inputs.labels),
        vector_arguments(inputs.weight), _numbers(inputs),
        (grad_loss.float().contiguous().numpy(), row_stats.numpy(), flat_view(grad)), rows_of_teacher(inputs),
    )  # fmt: skip
    return grad


def _numbers(inputs: Inputs) -> tuple[np.float32, np.float32, np.float32]:
    return np.float32(inputs.alpha), np.float32(inputs.temperature), np.float32(inputs.label_smoothing)


def is_teacher(numba_type: Any, kind: type) -> bool:
    """Whether a type that Numba infers is that of a teacher of this kind."""
    return isinstance(numba_type, types.NamedTuple) and numba_type.instance_class is kind


def teacher_terms(teacher, i, last, row, label, temperature, row_stats):
    """Row i's sum of exponentials at T = 1, the same at T, and KL(teacher || student) at T (compiled code only).

    Args:
        teacher: the teacher, of all rows.
        i: the row; rows i + 1 to `last` come next.
        row: the student's logits, their first index, their number, their maximum.
        label: the class, whether the label is soft, soft labels, the first index.
        temperature: T.
        row_stats: where the teacher leaves numbers for `write_gradient`.
    """
    raise NotImplementedError("teacher_terms() exists in compiled code only")


def write_gradient(teacher, i, row, label, temperature, factors, row_stats, grad):
    """Write row i of the gradient (compiled code only).

    Args:
        teacher, i, row, label, temperature: as for `teacher_terms`.
        factors: of exp(student - maximum), of the KD term's gradient, of the label, and what every class loses.
        row_stats: what forward left.
        grad: memory of the gradient, contiguous.
    """
    raise NotImplementedError("write_gradient() exists in compiled code only")


@jit(STRICT)
def _forward_rows(first, last, student, labels, weights, numbers, out, teacher):
    zs, stride_s, columns = student
    hard, soft, q, stride_q = labels
    has_weight, weight = weights
    alpha, temperature, smoothing = numbers
    loss, row_stats, want_stats, stats = out
    for i in range(first, last):
        s, r, y = i * stride_s, i * stride_q, hard[i]
        top_s = row_max(zs, s, s + columns)
        if i + 1 < last:
            prefetch_row(zs, s + stride_s, columns)
        mass = row_sum(q, r, columns) if soft else ONE
        row, label = (zs, s, columns, top_s), (y, soft, q, r)
        sum_1, sum_t, divergence = teacher_terms(teacher, i, last, row, label, temperature, row_stats)
        value = cross_entropy(zs, s, columns, y, top_s, sum_1, soft, q, r, mass, smoothing)
        if smoothing > ZERO:  # smoothing gives every class a share e/C, whatever the label's own mass
            mass = (ONE - smoothing) * mass + smoothing
        value = (ONE - alpha) * value + alpha * temperature * temperature * divergence
        loss[i] = value * weight[i] if has_weight else value
        row_stats[STUDENT_TOP, i] = top_s
        row_stats[STUDENT_INV_SUM, i] = ONE / sum_1
        row_stats[STUDENT_INV_SUM_T, i] = ONE / sum_t
        row_stats[LABEL_MASS, i] = mass
        if want_stats:
            row_training_stats(zs, s, columns, y, top_s, ONE / sum_1, soft, q, r, stats, i)


@jit(STRICT)
def _backward_rows(first, last, student, labels, weights, numbers, out, teacher):
    zs, stride_s, columns = student
    hard, soft, q, stride_q = labels
    has_weight, weight = weights
    alpha, temperature, smoothing = numbers
    grad_loss, row_stats, grad = out
    for i in range(first, last):
        upstream = grad_loss[i] * weight[i] if has_weight else grad_loss[i]
        ce, kd = upstream * (ONE - alpha), upstream * alpha * temperature
        factor = ce * row_stats[LABEL_MASS, i] * row_stats[STUDENT_INV_SUM, i]
        factors = (factor, kd, ce * (ONE - smoothing), ce * smoothing / np.float32(columns))
        row = (zs, i * stride_s, columns, row_stats[STUDENT_TOP, i])
        label = (hard[i], soft, q, i * stride_q)
        write_gradient(teacher, i, row, label, temperature, factors, row_stats, grad)


def _terms_without_teacher(teacher, i, last, row, label, temperature, row_stats):
    zs, s, columns, top_s = row
    row_stats[TEACHER_SHIFT, i] = ZERO  # never read, but an operator's results must not be accidental
    row_stats[TEACHER_INV_SUM, i] = ONE
    row_stats[TEACHER_SCALE, i] = ONE
    return sum_exp(zs, s, columns, top_s, ONE), ONE, ZERO


def _gradient_without_teacher(teacher, i, row, label, temperature, factors, row_stats, grad):
    zs, s, columns, top = row
    y, soft, q, r = label
    factor, _, c_q, c_0 = factors
    g = i * columns
    if soft:
        for j in range(columns):
            store(grad, g + j, factor * exp(load(zs, s + j) - top) - c_q * load(q, r + j) - c_0)
    else:
        for j in range(columns):
            store(grad, g + j, factor * exp(load(zs, s + j) - top) - c_0)
        # computed anew rather than corrected: a 16-bit gradient is rounded once
        store(grad, g + y, factor * exp(load(zs, s + y) - top) - c_0 - c_q)


@overload(teacher_terms, jit_options={"forceinline": True})
def _terms(teacher, i, last, row, label, temperature, row_stats):
    return _terms_without_teacher if isinstance(teacher, types.NoneType) else None


@overload(write_gradient, jit_options={"forceinline": True})
def _write(teacher, i, row, label, temperature, factors, row_stats, grad):
    return _gradient_without_teacher if isinstance(teacher, types.NoneType) else None


@jit(STRICT)
def _forward_entry(first, last, chunk, size, gomp_parallel, *args):
    open_region(_forward_rows, args, first, last, chunk, size, gomp_parallel)


@jit(STRICT)
def _backward_entry(first, last, chunk, size, gomp_parallel, *args):
    open_region(_backward_rows, args, first, last, chunk, size, gomp_parallel)
