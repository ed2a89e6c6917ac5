"""`kd_loss` for CUDA GPUs, in Triton: forward reads both rows once (online softmax), backward reads them once more.

Structure after flash-attention's cross entropy: forward stores row statistics, backward recomputes the softmaxes from
them. A gradient made in forward would be rounded to fp16 before the GradScaler's factor reaches it. Only `class_scale`
(a std before the softmax) and `stats` (the best of the other classes) walk the row again, from cache.
No value on the device is ever read by the host; `alpha` and `temperature` may be 0-d tensors that the kernel reads.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._launch import blocks, device_guard, tiling, unit_columns
from .._triton_blocks import (
    add_soft_label,
    add_student,
    add_teacher,
    cross_entropy,
    finite_base,
    label_part,
    read_label,
    read_scalar,
    store_training_stats,
    student_gradient,
    teacher_gradient,
)

ROW_STATS = 7  # max_s, 1/sum_1, 1/sum_T, max_t (after scaling), 1/sum_t, scale of the teacher's row, mass of the label


def forward(
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor,
    weight: Tensor | None,
    class_scale: Tensor | None,
    alpha: float | Tensor,
    temperature: float | Tensor,
    label_smoothing: float,
    want_stats: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (B,), row statistics (ROW_STATS, B) and training statistics (4, B) or (4, 0), all float32."""
    rows, columns = student.shape
    loss = student.new_empty(rows, dtype=torch.float32)
    row_stats = student.new_empty((ROW_STATS, rows), dtype=torch.float32)
    stats = student.new_empty((4, rows if want_stats else 0), dtype=torch.float32)
    if rows == 0:
        return loss, row_stats, stats
    student = unit_columns(student)
    shaped = student if teacher is None else unit_columns(teacher)  # a stand-in is never read
    soft = labels.dim() == 2
    labels = unit_columns(labels) if soft else labels.contiguous()
    tile = tiling(columns)
    with device_guard(student):
        _forward_kernel[(blocks(rows, tile.rows),)](
            student, student.stride(0), shaped, shaped.stride(0), labels, labels.stride(0),
            loss if weight is None else weight.contiguous(), loss if class_scale is None else class_scale.contiguous(),
            alpha, temperature, label_smoothing, loss, row_stats, stats, rows, columns,
            HAS_TEACHER=teacher is not None, SOFT=soft, HAS_WEIGHT=weight is not None,
            HAS_SCALE=class_scale is not None, WANT_STATS=want_stats, ALPHA_TENSOR=isinstance(alpha, Tensor),
            TEMPERATURE_TENSOR=isinstance(temperature, Tensor), ROWS=tile.rows, BLOCK=tile.columns,
            num_warps=tile.warps,
        )  # fmt: skip
    return loss, row_stats, stats


def backward(
    grad_loss: Tensor,
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor,
    weight: Tensor | None,
    row_stats: Tensor,
    alpha: float | Tensor,
    temperature: float | Tensor,
    label_smoothing: float,
) -> Tensor:
    """Return the gradient of sum(grad_loss * loss) by the student's logits, (B, C) in their dtype, contiguous."""
    rows, columns = student.shape
    grad = student.new_empty((rows, columns))
    if rows == 0:
        return grad
    student = unit_columns(student)
    shaped = student if teacher is None else unit_columns(teacher)
    soft = labels.dim() == 2
    labels = unit_columns(labels) if soft else labels.contiguous()
    tile = tiling(columns)
    with device_guard(student):
        _backward_kernel[(blocks(rows, tile.rows), blocks(columns, tile.columns))](
            grad_loss.contiguous(), student, student.stride(0), shaped, shaped.stride(0), labels, labels.stride(0),
            row_stats if weight is None else weight.contiguous(), row_stats,
            alpha, temperature, label_smoothing, grad, rows, columns,
            HAS_TEACHER=teacher is not None, SOFT=soft, HAS_WEIGHT=weight is not None,
            ALPHA_TENSOR=isinstance(alpha, Tensor), TEMPERATURE_TENSOR=isinstance(temperature, Tensor),
            ROWS=tile.rows, BLOCK=tile.columns, num_warps=tile.warps,
        )  # fmt: skip
    return grad


@triton.jit
def _teacher_scale(zt, labels, class_scale, start_t, start_q, y, row_ok, columns, SOFT: tl.constexpr,
                   ROWS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """s_y / std(z_t) per row: unbiased std over classes, block by block with Chan's merging of mean and M2."""
    mean = tl.zeros((ROWS,), tl.float32)
    m2 = tl.zeros((ROWS,), tl.float32)
    wanted = tl.zeros((ROWS,), tl.float32)
    for first in range(0, columns, BLOCK):
        j = first + tl.arange(0, BLOCK)[None, :]
        ok = row_ok[:, None] & (j < columns)
        z = tl.load(zt + start_t[:, None] + j, mask=ok, other=0.0).to(tl.float32)
        count = tl.minimum(columns - first, BLOCK).to(tl.float32)
        block_mean = tl.sum(z, axis=1) / count
        deviation = tl.where(ok, z - block_mean[:, None], 0.0)
        delta = block_mean - mean
        total = first + count
        m2 += tl.sum(deviation * deviation, axis=1) + delta * delta * (first * count / total)
        mean += delta * (count / total)
        if SOFT:
            q = tl.load(labels + start_q[:, None] + j, mask=ok, other=0.0).to(tl.float32)
            s = tl.load(class_scale + j, mask=j < columns, other=0.0).to(tl.float32)
            wanted += tl.sum(q * s, axis=1)
    if not SOFT:
        wanted = tl.load(class_scale + y, mask=row_ok, other=0.0).to(tl.float32)
    return wanted / tl.sqrt(m2 / (columns - 1))


@triton.jit
def _forward_kernel(
    zs, stride_s, zt, stride_t, labels, stride_q, weight, class_scale, alpha, temperature, smoothing,
    loss, row_stats, stats, rows, columns,
    HAS_TEACHER: tl.constexpr, SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_SCALE: tl.constexpr,
    WANT_STATS: tl.constexpr, ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_ok = row < rows
    start_s, start_t, start_q = row * stride_s, row * stride_t, row * stride_q
    a = read_scalar(alpha, ALPHA_TENSOR)
    t = read_scalar(temperature, TEMPERATURE_TENSOR)
    inv_t = 1.0 / t
    y = tl.zeros((ROWS,), tl.int64)
    known = row_ok
    if not SOFT:
        y, known = read_label(labels, row, row_ok, columns)
    scale = tl.full((ROWS,), 1.0, tl.float32)
    if HAS_SCALE:
        scale = _teacher_scale(zt, labels, class_scale, start_t, start_q, y, row_ok, columns, SOFT, ROWS, BLOCK)

    top_s = tl.full((ROWS,), float("-inf"), tl.float32)
    top_t = tl.full((ROWS,), float("-inf"), tl.float32)
    best_q = tl.full((ROWS,), float("-inf"), tl.float32)
    sum_1 = tl.zeros((ROWS,), tl.float32)
    sum_s = tl.zeros((ROWS,), tl.float32)
    sum_t = tl.zeros((ROWS,), tl.float32)
    cross = tl.zeros((ROWS,), tl.float32)  # sum of e_t * (teacher - student), each relative to its maximum
    sum_z = tl.zeros((ROWS,), tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    dot = tl.zeros((ROWS,), tl.float32)  # sum of q * (student - its maximum)
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

    nan = float("nan")
    sum_1 = tl.where(top_s == float("-inf"), nan, sum_1)  # a row of nothing but -inf has no softmax
    top_s = finite_base(top_s)
    value, mass = cross_entropy(zs, start_s, y, row_ok, columns, top_s, sum_1, sum_z, mass, dot, smoothing, SOFT)
    mass = tl.where(known, mass, nan)  # a label that is no class makes its row's gradient NaN
    if HAS_TEACHER:
        sum_t = tl.where(top_t == float("-inf"), nan, sum_t)
        top_t = finite_base(top_t)
        divergence = cross / sum_t * inv_t - tl.log(sum_t) + tl.log(sum_s)
        value = (1.0 - a) * value + a * t * t * divergence
    if HAS_WEIGHT:
        value = value * tl.load(weight + row, mask=row_ok, other=0.0).to(tl.float32)
    tl.store(loss + row, tl.where(known, value, nan), mask=row_ok)
    tl.store(row_stats + row, top_s, mask=row_ok)
    tl.store(row_stats + rows + row, 1.0 / sum_1, mask=row_ok)
    tl.store(row_stats + 2 * rows + row, 1.0 / sum_s, mask=row_ok)
    tl.store(row_stats + 3 * rows + row, top_t, mask=row_ok)
    tl.store(row_stats + 4 * rows + row, 1.0 / sum_t, mask=row_ok)
    tl.store(row_stats + 5 * rows + row, scale, mask=row_ok)
    tl.store(row_stats + 6 * rows + row, mass, mask=row_ok)
    if WANT_STATS:
        store_training_stats(
            stats, rows, row, zs, labels, start_s, start_q, y, top_s, 1.0 / sum_1, row_ok, columns, SOFT, ROWS, BLOCK
        )


@triton.jit
def _backward_kernel(
    grad_loss, zs, stride_s, zt, stride_t, labels, stride_q, weight, row_stats, alpha, temperature, smoothing,
    grad, rows, columns,
    HAS_TEACHER: tl.constexpr, SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr,
    ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_ok = row < rows
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    ok = row_ok[:, None] & (j < columns)
    upstream = tl.load(grad_loss + row, mask=row_ok, other=0.0).to(tl.float32)
    if HAS_WEIGHT:
        upstream = upstream * tl.load(weight + row, mask=row_ok, other=0.0).to(tl.float32)
    y = row
    if not SOFT:
        y = tl.load(labels + row, mask=row_ok, other=-1).to(tl.int64)
    q = label_part(labels, row * stride_q, y, j, ok, smoothing, columns, SOFT)
    z = tl.load(zs + (row * stride_s)[:, None] + j, mask=ok, other=0.0).to(tl.float32)
    if HAS_TEACHER:
        a = read_scalar(alpha, ALPHA_TENSOR)
        t = read_scalar(temperature, TEMPERATURE_TENSOR)
        w = tl.load(zt + (row * stride_t)[:, None] + j, mask=ok, other=0.0).to(tl.float32)
        value, d = student_gradient(z, q, upstream * (1.0 - a), row_stats, rows, row, row_ok)
        value += teacher_gradient(d, w, upstream * a * t, 1.0 / t, row_stats, rows, row, row_ok)
    else:
        value, d = student_gradient(z, q, upstream, row_stats, rows, row, row_ok)
    tl.store(grad + (row * columns)[:, None] + j, value.to(grad.dtype.element_ty), mask=ok)
