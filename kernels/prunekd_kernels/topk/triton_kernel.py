"""`kd_loss_sparse` for CUDA GPUs, in Triton: one read of the student's row per pass, K terms for the teacher.

Backward writes the whole row as if every class had the even share, then, behind a barrier, the K kept entries once more
with their own probability: computed anew from the logit, not added to, so that a 16-bit gradient is rounded once.
"""

import triton
import triton.language as tl
from torch import Tensor

from .._inputs import Inputs, label_scale
from .._launch import blocks, device_guard, loss_arguments, new_results, tiling
from .._stats import TOPK_ROW_STATS
from .._triton_blocks import label_part, load_stat, store_stat
from .._triton_loss import begin_gradient, begin_rows, finish_rows, student_gradient, walk_rows


def forward(inputs: Inputs, want_stats: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (B,), row statistics (TOPK_ROW_STATS, B) and training statistics (4, B) or (4, 0), all float32."""
    rows, columns = inputs.student.shape
    loss, row_stats, stats = new_results(inputs.student, TOPK_ROW_STATS, want_stats)
    _, _, logsumexp, std = inputs.teacher
    scale = None if inputs.class_scale is None or std is None else label_scale(inputs.class_scale, inputs.labels) / std
    tile = tiling(columns)
    with device_guard(inputs.student):
        if rows:
            _forward_kernel[(blocks(rows, tile.rows),)](
                *loss_arguments(inputs, loss), *_teacher_arguments(inputs), loss, row_stats, stats,
                loss if logsumexp is None else logsumexp.contiguous(), loss if scale is None else scale,
                logsumexp is not None, scale is not None, want_stats, tile.rows, tile.columns, num_warps=tile.warps,
            )  # fmt: skip
    return loss, row_stats, stats


def backward(grad_loss: Tensor, inputs: Inputs, row_stats: Tensor) -> Tensor:
    """Return the gradient of sum(grad_loss * loss) by the student's logits, (B, C) in their dtype, contiguous."""
    rows, columns = inputs.student.shape
    grad, tile = inputs.student.new_empty((rows, columns)), tiling(columns)
    with device_guard(inputs.student):
        if rows:
            _backward_kernel[(blocks(rows, tile.rows),)](
                *loss_arguments(inputs, row_stats), *_teacher_arguments(inputs), grad_loss.contiguous(), row_stats,
                grad, tile.rows, tile.columns, num_warps=tile.warps,
            )  # fmt: skip
    return grad


def _teacher_arguments(inputs: Inputs) -> tuple[Tensor, Tensor, int, int]:
    """A kernel's ids, values, kept and KEPT."""
    ids, logits = inputs.teacher[:2]
    assert ids is not None
    assert logits is not None
    kept = ids.shape[1]
    return ids.contiguous(), logits.contiguous(), kept, triton.next_power_of_2(kept)


@triton.jit
def _forward_kernel(
    zs, stride_s, labels, stride_q, weight, alpha, temperature, smoothing, rows, columns,
    SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr,
    ids, values, kept, KEPT: tl.constexpr, loss, row_stats, stats, logsumexp, scales, SPREAD: tl.constexpr,
    HAS_SCALE: tl.constexpr, WANT_STATS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, row_ok, y, known, a, t = begin_rows(
        labels, alpha, temperature, rows, columns, SOFT, ALPHA_TENSOR, TEMPERATURE_TENSOR, ROWS
    )
    start_s, start_q = row * stride_s, row * stride_q
    inv_t = 1.0 / t
    top_s, sum_1, sum_s, sum_z, y, mass, dot, _, _, _ = walk_rows(
        zs, start_s, zs, start_s, inv_t, labels, start_q, y, row_ok, columns, inv_t, False, SOFT, ROWS, BLOCK
    )
    k = tl.arange(0, KEPT)[None, :]
    k_ok = row_ok[:, None] & (k < kept)
    id_k = tl.load(ids + (row * kept)[:, None] + k, mask=k_ok, other=0).to(tl.int64)
    id_ok = (id_k >= 0) & (id_k < columns)
    known = known & (tl.min(id_ok.to(tl.int32), axis=1) > 0)
    scale = tl.full((ROWS,), 1.0, tl.float32)
    if HAS_SCALE:
        scale = tl.load(scales + row, mask=row_ok, other=1.0).to(tl.float32)
    v = tl.load(values + (row * kept)[:, None] + k, mask=k_ok, other=0.0).to(tl.float32) * scale[:, None] * inv_t
    if SPREAD:
        shift = tl.load(logsumexp + row, mask=row_ok, other=0.0).to(tl.float32)
        sum_k = tl.full((ROWS,), 1.0, tl.float32)
    else:
        shift = tl.max(tl.where(k_ok, v, float("-inf")), axis=1)
        shift = tl.where(row_ok, shift, 0.0)
        sum_k = tl.sum(tl.where(k_ok, tl.exp(v - shift[:, None]), 0.0), axis=1)
    p = tl.where(k_ok, tl.exp(v - shift[:, None]) / sum_k[:, None], 0.0)
    mass_t = tl.sum(p, axis=1)
    missing = tl.zeros((ROWS,), tl.float32)
    if SPREAD:
        missing = tl.where(columns > kept, tl.maximum(1.0 - mass_t, 0.0), 0.0)
    share = missing / tl.maximum(columns - kept, 1)
    z_k = tl.load(zs + start_s[:, None] + tl.where(id_ok, id_k, 0), mask=k_ok, other=0.0).to(tl.float32)
    terms = tl.where(p == 0.0, 0.0, p * (v - shift[:, None] - tl.log(sum_k)[:, None]))
    terms -= (p - share[:, None]) * (z_k - top_s[:, None]) * inv_t
    divergence = tl.sum(tl.where(k_ok, terms, 0.0), axis=1)
    even = missing * tl.log(share) - share * inv_t * (sum_z - columns * top_s)
    divergence += tl.where(share > 0.0, even, 0.0) + (mass_t + missing) * tl.log(sum_s)
    store_stat(row_stats, "TEACHER_SHIFT", rows, row, row_ok, shift)
    store_stat(row_stats, "TEACHER_INV_SUM", rows, row, row_ok, 1.0 / sum_k)
    store_stat(row_stats, "TEACHER_SCALE", rows, row, row_ok, scale)
    store_stat(row_stats, "TEACHER_MASS", rows, row, row_ok, mass_t + missing)
    store_stat(row_stats, "TEACHER_SHARE", rows, row, row_ok, share)
    finish_rows(
        loss, row_stats, stats, weight, zs, start_s, labels, start_q, row, row_ok, y, known,
        top_s, sum_1, sum_s, sum_z, mass, dot, divergence, a, t, smoothing, rows, columns,
        True, SOFT, HAS_WEIGHT, WANT_STATS, ROWS, BLOCK,
    )  # fmt: skip


@triton.jit
def _entries(zs, start_s, labels, start_q, y, j, ok, top_s, inv_t, ce, factor_1, factor_t, smoothing, columns,
             SOFT: tl.constexpr):  # fmt: skip
    """The gradient at columns j (ROWS, n) without the teacher's part."""
    z = tl.load(zs + start_s[:, None] + j, mask=ok, other=0.0).to(tl.float32)
    q = label_part(labels, start_q, y, j, ok, smoothing, columns, SOFT)
    value, d = student_gradient(z, q, top_s, ce, factor_1)
    return value + factor_t[:, None] * tl.exp(d * inv_t)


@triton.jit
def _backward_kernel(
    zs, stride_s, labels, stride_q, weight, alpha, temperature, smoothing, rows, columns,
    SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr,
    ids, values, kept, KEPT: tl.constexpr, grad_loss, row_stats, grad, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, row_ok, y, top_s, inv_t, ce, factor_1, kd = begin_gradient(
        grad_loss, weight, labels, row_stats, alpha, temperature, rows,
        True, SOFT, HAS_WEIGHT, ALPHA_TENSOR, TEMPERATURE_TENSOR, ROWS,
    )  # fmt: skip
    start_s, start_q, start_g = row * stride_s, row * stride_q, row * columns
    mass_t = load_stat(row_stats, "TEACHER_MASS", rows, row, row_ok)
    factor_t = kd * mass_t * load_stat(row_stats, "STUDENT_INV_SUM_T", rows, row, row_ok)
    share = load_stat(row_stats, "TEACHER_SHARE", rows, row, row_ok)
    shift = load_stat(row_stats, "TEACHER_SHIFT", rows, row, row_ok)
    inv_k = load_stat(row_stats, "TEACHER_INV_SUM", rows, row, row_ok)
    scale = load_stat(row_stats, "TEACHER_SCALE", rows, row, row_ok)
    for first in range(0, columns, BLOCK):
        j = first + tl.arange(0, BLOCK)[None, :]
        ok = row_ok[:, None] & (j < columns)
        value = _entries(zs, start_s, labels, start_q, y, j, ok, top_s, inv_t, ce, factor_1, factor_t, smoothing,
                         columns, SOFT)  # fmt: skip
        value -= (kd * share)[:, None]
        tl.store(grad + start_g[:, None] + j, value.to(grad.dtype.element_ty), mask=ok)

    tl.debug_barrier()  # the kept entries are written twice, by different threads: the second must come last
    k = tl.arange(0, KEPT)[None, :]
    k_ok = row_ok[:, None] & (k < kept)
    id_k = tl.load(ids + (row * kept)[:, None] + k, mask=k_ok, other=0).to(tl.int64)
    k_ok = k_ok & (id_k >= 0) & (id_k < columns)
    v = tl.load(values + (row * kept)[:, None] + k, mask=k_ok, other=0.0).to(tl.float32) * scale[:, None] * inv_t
    value = _entries(zs, start_s, labels, start_q, y, id_k, k_ok, top_s, inv_t, ce, factor_1, factor_t, smoothing,
                     columns, SOFT)  # fmt: skip
    value -= kd[:, None] * tl.exp(v - shift[:, None]) * inv_k[:, None]
    tl.store(grad + start_g[:, None] + id_k, value.to(grad.dtype.element_ty), mask=k_ok)
