"""`kd_loss_sparse` for CUDA GPUs, in Triton: one read of the student's row per pass, K terms for the teacher.

Backward writes the whole row as if every class had the even share, then, behind a barrier, the K kept entries once more
with their own probability: computed anew from the logit, not added to, so that a 16-bit gradient is rounded once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._launch import blocks, device_guard, tiling, unit_columns
from .._triton_blocks import (
    add_soft_label,
    add_student,
    cross_entropy,
    finite_base,
    label_part,
    read_label,
    read_scalar,
    store_training_stats,
)

ROW_STATS = 9  # max_s, 1/sum_1, 1/sum_T, mass_t, share of every other class, shift and 1/sum of top K, scale, mass of q


def forward(
    student: Tensor,
    topk_ids: Tensor,
    topk_logits: Tensor,
    logsumexp: Tensor | None,
    labels: Tensor,
    weight: Tensor | None,
    scale: Tensor | None,
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
    student, soft = unit_columns(student), labels.dim() == 2
    labels = unit_columns(labels) if soft else labels.contiguous()
    kept, tile = topk_ids.shape[1], tiling(columns)
    with device_guard(student):
        _forward_kernel[(blocks(rows, tile.rows),)](
            student, student.stride(0), topk_ids.contiguous(), topk_logits.contiguous(),
            loss if logsumexp is None else logsumexp.contiguous(), labels, labels.stride(0),
            loss if weight is None else weight.contiguous(), loss if scale is None else scale.contiguous(),
            alpha, temperature, label_smoothing, loss, row_stats, stats, rows, columns, kept,
            SPREAD=logsumexp is not None, SOFT=soft, HAS_WEIGHT=weight is not None, HAS_SCALE=scale is not None,
            WANT_STATS=want_stats, ALPHA_TENSOR=isinstance(alpha, Tensor),
            TEMPERATURE_TENSOR=isinstance(temperature, Tensor),
            ROWS=tile.rows, BLOCK=tile.columns, KEPT=triton.next_power_of_2(kept), num_warps=tile.warps,
        )  # fmt: skip
    return loss, row_stats, stats


def backward(
    grad_loss: Tensor,
    student: Tensor,
    topk_ids: Tensor,
    topk_logits: Tensor,
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
    student, soft = unit_columns(student), labels.dim() == 2
    labels = unit_columns(labels) if soft else labels.contiguous()
    kept, tile = topk_ids.shape[1], tiling(columns)
    with device_guard(student):
        _backward_kernel[(blocks(rows, tile.rows),)](
            grad_loss.contiguous(), student, student.stride(0), topk_ids.contiguous(), topk_logits.contiguous(),
            labels, labels.stride(0), row_stats if weight is None else weight.contiguous(), row_stats,
            alpha, temperature, label_smoothing, grad, rows, columns, kept,
            SOFT=soft, HAS_WEIGHT=weight is not None, ALPHA_TENSOR=isinstance(alpha, Tensor),
            TEMPERATURE_TENSOR=isinstance(temperature, Tensor),
            ROWS=tile.rows, BLOCK=tile.columns, KEPT=triton.next_power_of_2(kept), num_warps=tile.warps,
        )  # fmt: skip
    return grad


@triton.jit
def _forward_kernel(
    zs, stride_s, ids, values, logsumexp, labels, stride_q, weight, scales, alpha, temperature, smoothing,
    loss, row_stats, stats, rows, columns, kept,
    SPREAD: tl.constexpr, SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_SCALE: tl.constexpr,
    WANT_STATS: tl.constexpr, ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_ok = row < rows
    start_s, start_q = row * stride_s, row * stride_q
    a = read_scalar(alpha, ALPHA_TENSOR)
    t = read_scalar(temperature, TEMPERATURE_TENSOR)
    inv_t = 1.0 / t
    y = tl.zeros((ROWS,), tl.int64)
    known = row_ok
    if not SOFT:
        y, known = read_label(labels, row, row_ok, columns)
    top_s = tl.full((ROWS,), float("-inf"), tl.float32)
    best_q = tl.full((ROWS,), float("-inf"), tl.float32)
    sum_1 = tl.zeros((ROWS,), tl.float32)
    sum_s = tl.zeros((ROWS,), tl.float32)
    sum_z = tl.zeros((ROWS,), tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    dot = tl.zeros((ROWS,), tl.float32)
    for first in range(0, columns, BLOCK):
        j = first + tl.arange(0, BLOCK)[None, :]
        ok = row_ok[:, None] & (j < columns)
        z = tl.load(zs + start_s[:, None] + j, mask=ok, other=float("-inf")).to(tl.float32)
        d, before, base, top_s, sum_1, sum_s, sum_z = add_student(z, ok, top_s, sum_1, sum_s, sum_z, inv_t)
        if SOFT:
            q = tl.load(labels + start_q[:, None] + j, mask=ok, other=0.0).to(tl.float32)
            mass, dot, y, best_q = add_soft_label(q, d, ok, first, before, base, mass, dot, y, best_q)

    nan = float("nan")
    sum_1 = tl.where(top_s == float("-inf"), nan, sum_1)
    top_s = finite_base(top_s)
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

    value, mass = cross_entropy(zs, start_s, y, row_ok, columns, top_s, sum_1, sum_z, mass, dot, smoothing, SOFT)
    mass = tl.where(known, mass, nan)
    value = (1.0 - a) * value + a * t * t * divergence
    if HAS_WEIGHT:
        value = value * tl.load(weight + row, mask=row_ok, other=0.0).to(tl.float32)
    tl.store(loss + row, tl.where(known, value, nan), mask=row_ok)
    tl.store(row_stats + row, top_s, mask=row_ok)
    tl.store(row_stats + rows + row, 1.0 / sum_1, mask=row_ok)
    tl.store(row_stats + 2 * rows + row, 1.0 / sum_s, mask=row_ok)
    tl.store(row_stats + 3 * rows + row, mass_t + missing, mask=row_ok)
    tl.store(row_stats + 4 * rows + row, share, mask=row_ok)
    tl.store(row_stats + 5 * rows + row, shift, mask=row_ok)
    tl.store(row_stats + 6 * rows + row, 1.0 / sum_k, mask=row_ok)
    tl.store(row_stats + 7 * rows + row, scale, mask=row_ok)
    tl.store(row_stats + 8 * rows + row, mass, mask=row_ok)
    if WANT_STATS:
        store_training_stats(
            stats, rows, row, zs, labels, start_s, start_q, y, top_s, 1.0 / sum_1, row_ok, columns, SOFT, ROWS, BLOCK
        )


@triton.jit
def _entries(zs, start_s, labels, start_q, y, j, ok, top_s, inv_t, factor_1, factor_t, ce, smoothing, columns,
             SOFT: tl.constexpr):  # fmt: skip
    """The gradient at columns j (ROWS, n) without the teacher's part."""
    d = tl.load(zs + start_s[:, None] + j, mask=ok, other=0.0).to(tl.float32) - top_s[:, None]
    student = factor_1[:, None] * tl.exp(d) + factor_t[:, None] * tl.exp(d * inv_t)
    return student - ce[:, None] * label_part(labels, start_q, y, j, ok, smoothing, columns, SOFT)


@triton.jit
def _backward_kernel(
    grad_loss, zs, stride_s, ids, values, labels, stride_q, weight, row_stats, alpha, temperature, smoothing,
    grad, rows, columns, kept,
    SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_ok = row < rows
    start_s, start_q, start_g = row * stride_s, row * stride_q, row * columns
    a = read_scalar(alpha, ALPHA_TENSOR)
    t = read_scalar(temperature, TEMPERATURE_TENSOR)
    inv_t = 1.0 / t
    upstream = tl.load(grad_loss + row, mask=row_ok, other=0.0).to(tl.float32)
    if HAS_WEIGHT:
        upstream = upstream * tl.load(weight + row, mask=row_ok, other=0.0).to(tl.float32)
    ce = upstream * (1.0 - a)
    kd = upstream * a * t
    top_s = tl.load(row_stats + row, mask=row_ok, other=0.0)
    inv_1 = tl.load(row_stats + rows + row, mask=row_ok, other=0.0)
    inv_s = tl.load(row_stats + 2 * rows + row, mask=row_ok, other=0.0)
    mass_t = tl.load(row_stats + 3 * rows + row, mask=row_ok, other=0.0)
    share = tl.load(row_stats + 4 * rows + row, mask=row_ok, other=0.0)
    shift = tl.load(row_stats + 5 * rows + row, mask=row_ok, other=0.0)
    inv_k = tl.load(row_stats + 6 * rows + row, mask=row_ok, other=0.0)
    scale = tl.load(row_stats + 7 * rows + row, mask=row_ok, other=0.0)
    mass = tl.load(row_stats + 8 * rows + row, mask=row_ok, other=0.0)
    factor_1 = ce * mass * inv_1
    factor_t = kd * mass_t * inv_s
    y = row
    if not SOFT:
        y = tl.load(labels + row, mask=row_ok, other=-1).to(tl.int64)
    for first in range(0, columns, BLOCK):
        j = first + tl.arange(0, BLOCK)[None, :]
        ok = row_ok[:, None] & (j < columns)
        value = _entries(zs, start_s, labels, start_q, y, j, ok, top_s, inv_t, factor_1, factor_t, ce, smoothing,
                         columns, SOFT)  # fmt: skip
        value -= (kd * share)[:, None]
        tl.store(grad + start_g[:, None] + j, value.to(grad.dtype.element_ty), mask=ok)

    tl.debug_barrier()  # the kept entries are written twice, by different threads: the second must come last
    k = tl.arange(0, KEPT)[None, :]
    k_ok = row_ok[:, None] & (k < kept)
    id_k = tl.load(ids + (row * kept)[:, None] + k, mask=k_ok, other=0).to(tl.int64)
    k_ok = k_ok & (id_k >= 0) & (id_k < columns)
    v = tl.load(values + (row * kept)[:, None] + k, mask=k_ok, other=0.0).to(tl.float32) * scale[:, None] * inv_t
    value = _entries(zs, start_s, labels, start_q, y, id_k, k_ok, top_s, inv_t, factor_1, factor_t, ce, smoothing,
                     columns, SOFT)  # fmt: skip
    value -= kd[:, None] * tl.exp(v - shift[:, None]) * inv_k[:, None]
    tl.store(grad + start_g[:, None] + id_k, value.to(grad.dtype.element_ty), mask=k_ok)
