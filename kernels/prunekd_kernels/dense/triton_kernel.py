"""`kd_loss` for CUDA GPUs, in Triton: forward reads both rows once (online softmax), backward reads them once more.

Structure after flash-attention's cross entropy: forward stores row statistics, backward recomputes the softmaxes from
them. A gradient made in forward would be rounded to fp16 before the GradScaler's factor reaches it. Only `class_scale`
(a std before the softmax) and `stats` (the best of the other classes) walk the row again, from cache.
No value on the device is ever read by the host; `alpha` and `temperature` may be 0-d tensors that the kernel reads.
"""

import triton
import triton.language as tl
from torch import Tensor

from .._inputs import Inputs
from .._launch import blocks, device_guard, loss_arguments, new_results, tiling, unit_columns
from .._stats import DENSE_ROW_STATS
from .._triton_blocks import label_part, store_stat
from .._triton_loss import begin_gradient, begin_rows, finish_rows, student_gradient, teacher_gradient, walk_rows


def forward(inputs: Inputs, want_stats: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (B,), row statistics (DENSE_ROW_STATS, B) and training statistics (4, B) or (4, 0), all float32."""
    rows, columns = inputs.student.shape
    loss, row_stats, stats = new_results(inputs.student, DENSE_ROW_STATS, want_stats)
    tile, class_scale = tiling(columns), inputs.class_scale
    with device_guard(inputs.student):
        if rows:
            _forward_kernel[(blocks(rows, tile.rows),)](
                *loss_arguments(inputs, loss), *_teacher_arguments(inputs), loss, row_stats, stats,
                loss if class_scale is None else class_scale.contiguous(), class_scale is not None, want_stats,
                tile.rows, tile.columns, num_warps=tile.warps,
            )  # fmt: skip
    return loss, row_stats, stats


def backward(grad_loss: Tensor, inputs: Inputs, row_stats: Tensor) -> Tensor:
    """Return the gradient of sum(grad_loss * loss) by the student's logits, (B, C) in their dtype, contiguous."""
    rows, columns = inputs.student.shape
    grad, tile = inputs.student.new_empty((rows, columns)), tiling(columns)
    with device_guard(inputs.student):
        if rows:
            _backward_kernel[(blocks(rows, tile.rows), blocks(columns, tile.columns))](
                *loss_arguments(inputs, row_stats), *_teacher_arguments(inputs), grad_loss.contiguous(), row_stats,
                grad, tile.rows, tile.columns, num_warps=tile.warps,
            )  # fmt: skip
    return grad


def _teacher_arguments(inputs: Inputs) -> tuple[Tensor, int, bool]:
    """A kernel's zt, stride_t and HAS_TEACHER."""
    (teacher,) = inputs.teacher
    logits = unit_columns(inputs.student if teacher is None else teacher)  # a stand-in is never read
    return logits, logits.stride(0), teacher is not None


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
    zs, stride_s, labels, stride_q, weight, alpha, temperature, smoothing, rows, columns,
    SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr,
    zt, stride_t, HAS_TEACHER: tl.constexpr, loss, row_stats, stats, class_scale,
    HAS_SCALE: tl.constexpr, WANT_STATS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, row_ok, y, known, a, t = begin_rows(
        labels, alpha, temperature, rows, columns, SOFT, ALPHA_TENSOR, TEMPERATURE_TENSOR, ROWS
    )
    start_s, start_t, start_q = row * stride_s, row * stride_t, row * stride_q
    inv_t = 1.0 / t
    scale = tl.full((ROWS,), 1.0, tl.float32)
    if HAS_SCALE:
        scale = _teacher_scale(zt, labels, class_scale, start_t, start_q, y, row_ok, columns, SOFT, ROWS, BLOCK)
    top_s, sum_1, sum_s, sum_z, y, mass, dot, top_t, sum_t, cross = walk_rows(
        zs, start_s, zt, start_t, scale, labels, start_q, y, row_ok, columns, inv_t, HAS_TEACHER, SOFT, ROWS, BLOCK
    )
    divergence = cross
    if HAS_TEACHER:
        divergence = cross / sum_t * inv_t - tl.log(sum_t) + tl.log(sum_s)
    store_stat(row_stats, "TEACHER_SHIFT", rows, row, row_ok, top_t)
    store_stat(row_stats, "TEACHER_INV_SUM", rows, row, row_ok, 1.0 / sum_t)
    store_stat(row_stats, "TEACHER_SCALE", rows, row, row_ok, scale)
    finish_rows(
        loss, row_stats, stats, weight, zs, start_s, labels, start_q, row, row_ok, y, known,
        top_s, sum_1, sum_s, sum_z, mass, dot, divergence, a, t, smoothing, rows, columns,
        HAS_TEACHER, SOFT, HAS_WEIGHT, WANT_STATS, ROWS, BLOCK,
    )  # fmt: skip


@triton.jit
def _backward_kernel(
    zs, stride_s, labels, stride_q, weight, alpha, temperature, smoothing, rows, columns,
    SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr,
    zt, stride_t, HAS_TEACHER: tl.constexpr, grad_loss, row_stats, grad, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, row_ok, y, top_s, inv_t, ce, factor_1, kd = begin_gradient(
        grad_loss, weight, labels, row_stats, alpha, temperature, rows,
        HAS_TEACHER, SOFT, HAS_WEIGHT, ALPHA_TENSOR, TEMPERATURE_TENSOR, ROWS,
    )  # fmt: skip
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    ok = row_ok[:, None] & (j < columns)
    q = label_part(labels, row * stride_q, y, j, ok, smoothing, columns, SOFT)
    z = tl.load(zs + (row * stride_s)[:, None] + j, mask=ok, other=0.0).to(tl.float32)
    value, d = student_gradient(z, q, top_s, ce, factor_1)
    if HAS_TEACHER:
        w = tl.load(zt + (row * stride_t)[:, None] + j, mask=ok, other=0.0).to(tl.float32)
        value += teacher_gradient(d, w, kd, inv_t, row_stats, rows, row, row_ok)
    tl.store(grad + (row * columns)[:, None] + j, value.to(grad.dtype.element_ty), mask=ok)
