"""The distillation losses for CUDA GPUs, in Triton: what a program does with its rows, whatever the teacher is.

A forward kernel is `begin_rows`, `walk_rows`, the teacher's own divergence, `finish_rows`. A backward kernel is
`begin_gradient`, `student_gradient` and the teacher's own part.
"""

# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl

from ._triton_blocks import (
    add_soft_label,
    add_student,
    add_teacher,
    cross_entropy,
    finite_base,
    load_stat,
    read_label,
    read_scalar,
    store_stat,
    store_training_stats,
)


@triton.jit
def begin_rows(
    labels, alpha, temperature, rows, columns,
    SOFT: tl.constexpr, ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """This program's rows, which of them exist, their integer labels and whether those are classes; alpha, T."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_ok = row < rows
    y = tl.zeros((ROWS,), tl.int64)
    known = row_ok
    if not SOFT:
        y, known = read_label(labels, row, row_ok, columns)
    return row, row_ok, y, known, read_scalar(alpha, ALPHA_TENSOR), read_scalar(temperature, TEMPERATURE_TENSOR)


@triton.jit
def walk_rows(
    zs, start_s, zt, start_t, scale, labels, start_q, y, row_ok, columns, inv_t,
    HAS_TEACHER: tl.constexpr, SOFT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Read rows of the student, of soft labels and of a dense teacher once.

    Returns the student's maximum, its sums of exponentials at T = 1 and T, its sum; of the label its class, mass and
    product with the student's row; of the teacher its maximum, sum of exponentials at T, and the sum of these times
    (teacher - student). Products and exponentials are relative to the maxima.
    """
    top_s = tl.full((ROWS,), float("-inf"), tl.float32)
    top_t = tl.full((ROWS,), float("-inf"), tl.float32)
    best_q = tl.full((ROWS,), float("-inf"), tl.float32)
    sum_1 = tl.zeros((ROWS,), tl.float32)
    sum_s = tl.zeros((ROWS,), tl.float32)
    sum_t = tl.zeros((ROWS,), tl.float32)
    cross = tl.zeros((ROWS,), tl.float32)
    sum_z = tl.zeros((ROWS,), tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    dot = tl.zeros((ROWS,), tl.float32)
    for first in range(0, columns, BLOCK):
        j = first + tl.arange(0, BLOCK)[None, :]
        ok = row_ok[:, None] & (j < columns)
        z = tl.load(zs + start_s[:, None] + j, mask=ok, other=float("-inf")).to(tl.float32)
        d_s, before, base, top_s, sum_1, sum_s, sum_z = add_student(z, ok, top_s, sum_1, sum_s, sum_z, inv_t)
        if SOFT:
            q = tl.load(labels + start_q[:, None] + j, mask=ok, other=0.0).to(tl.float32)
            mass, dot, y, best_q = add_soft_label(q, d_s, ok, first, before, base, mass, dot, y, best_q)
        if HAS_TEACHER:
            w = tl.load(zt + start_t[:, None] + j, mask=ok, other=0.0).to(tl.float32)
            w = tl.where(ok, w * scale[:, None], float("-inf"))
            top_t, sum_t, cross = add_teacher(w, d_s, ok, before, base, top_t, sum_t, cross, inv_t)
    sum_1 = tl.where(top_s == float("-inf"), float("nan"), sum_1)  # a row of nothing but -inf has no softmax
    if HAS_TEACHER:
        sum_t = tl.where(top_t == float("-inf"), float("nan"), sum_t)
    return finite_base(top_s), sum_1, sum_s, sum_z, y, mass, dot, finite_base(top_t), sum_t, cross


@triton.jit
def finish_rows(
    loss, row_stats, stats, weight, zs, start_s, labels, start_q, row, row_ok, y, known,
    top_s, sum_1, sum_s, sum_z, mass, dot, divergence, a, t, smoothing, rows, columns,
    HAS_TEACHER: tl.constexpr, SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, WANT_STATS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the loss, what backward needs of student and label, and the training statistics if wanted."""
    nan = float("nan")
    value, mass = cross_entropy(zs, start_s, y, row_ok, columns, top_s, sum_1, sum_z, mass, dot, smoothing, SOFT)
    mass = tl.where(known, mass, nan)  # a label that is no class makes its row's gradient NaN
    if HAS_TEACHER:
        value = (1.0 - a) * value + a * t * t * divergence
    if HAS_WEIGHT:
        value = value * tl.load(weight + row, mask=row_ok, other=0.0).to(tl.float32)
    tl.store(loss + row, tl.where(known, value, nan), mask=row_ok)
    store_stat(row_stats, "STUDENT_TOP", rows, row, row_ok, top_s)
    store_stat(row_stats, "STUDENT_INV_SUM", rows, row, row_ok, 1.0 / sum_1)
    store_stat(row_stats, "STUDENT_INV_SUM_T", rows, row, row_ok, 1.0 / sum_s)
    store_stat(row_stats, "LABEL_MASS", rows, row, row_ok, mass)
    if WANT_STATS:
        store_training_stats(
            stats, rows, row, zs, labels, start_s, start_q, y, top_s, 1.0 / sum_1, row_ok, columns, SOFT, ROWS, BLOCK
        )


@triton.jit
def begin_gradient(
    grad_loss, weight, labels, row_stats, alpha, temperature, rows,
    HAS_TEACHER: tl.constexpr, SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, ALPHA_TENSOR: tl.constexpr,
    TEMPERATURE_TENSOR: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """This program's rows, which of them exist, their labels, the student's maximum; 1 / T; factors of gradients.

    The factors are the cross entropy's, its softmax's and the divergence's.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_ok = row < rows
    y = row
    if not SOFT:
        y = tl.load(labels + row, mask=row_ok, other=-1).to(tl.int64)
    ce = tl.load(grad_loss + row, mask=row_ok, other=0.0).to(tl.float32)
    if HAS_WEIGHT:
        ce = ce * tl.load(weight + row, mask=row_ok, other=0.0).to(tl.float32)
    kd = ce
    inv_t = 1.0
    if HAS_TEACHER:
        a = read_scalar(alpha, ALPHA_TENSOR)
        t = read_scalar(temperature, TEMPERATURE_TENSOR)
        kd = ce * a * t
        ce = ce * (1.0 - a)
        inv_t = 1.0 / t
    mass = load_stat(row_stats, "LABEL_MASS", rows, row, row_ok)
    factor_1 = ce * mass * load_stat(row_stats, "STUDENT_INV_SUM", rows, row, row_ok)
    return row, row_ok, y, load_stat(row_stats, "STUDENT_TOP", rows, row, row_ok), inv_t, ce, factor_1, kd


@triton.jit
def student_gradient(z, q, top_s, ce, factor_1):
    """The cross entropy's gradient at logits z with targets q, and z relative to its row's base."""
    d = z - top_s[:, None]
    return factor_1[:, None] * tl.exp(d) - ce[:, None] * q, d


@triton.jit
def teacher_gradient(d, w, kd, inv_t, row_stats, rows, row, row_ok):
    """The divergence's gradient, from the student's logits relative to their base and the teacher's logits w."""
    inv_s = load_stat(row_stats, "STUDENT_INV_SUM_T", rows, row, row_ok)
    top_t = load_stat(row_stats, "TEACHER_SHIFT", rows, row, row_ok)
    inv_t_sum = load_stat(row_stats, "TEACHER_INV_SUM", rows, row, row_ok)
    scale = load_stat(row_stats, "TEACHER_SCALE", rows, row, row_ok)
    e_t = tl.exp((w * scale[:, None] - top_t[:, None]) * inv_t)
    return (kd * inv_s)[:, None] * tl.exp(d * inv_t) - (kd * inv_t_sum)[:, None] * e_t
