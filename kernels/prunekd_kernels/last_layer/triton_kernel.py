"""`teacher_head_kd` for CUDA GPUs, in Triton: tiles of the teacher's logits live in registers and nowhere else.

Forward is three launches: `kd_loss`'s own kernel for what concerns the student alone; a grid over (row tile, share of
the classes) that multiplies features and head tile by tile and keeps three numbers per row and share; a merge of them.
Backward multiplies once more and writes the gradient of each tile. `class_scale` needs the std of a row before its
softmax, hence one more product. The classes are split because a batch has too few row tiles to fill a GPU.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._backends import interpreting
from .._inputs import Inputs, label_scale
from .._launch import blocks, device_guard, loss_arguments, unit_columns
from .._stats import TEACHER_SCALE
from .._triton_blocks import add_teacher, finite_base, label_part, load_stat, read_scalar, store_stat
from .._triton_loss import begin_gradient, student_gradient, teacher_gradient
from ..dense import triton_kernel as dense

_ROWS, _COLUMNS, _DEPTH, _WARPS = 64, 128, 32, 8
_PROGRAMS = 512  # about four for each multiprocessor of a large GPU


def forward(inputs: Inputs, want_stats: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (B,), row statistics (DENSE_ROW_STATS, B) and training statistics (4, B) or (4, 0), all float32."""
    alone = inputs._replace(teacher=(None,), weight=None, class_scale=None, alpha=0.0)
    loss, row_stats, stats = dense.forward(alone, want_stats)
    rows, columns = inputs.student.shape
    if rows == 0:
        return loss, row_stats, stats
    row_tiles, column_tiles = blocks(rows, _ROWS), blocks(columns, _COLUMNS)
    per_share = blocks(column_tiles, max(1, _PROGRAMS // row_tiles))
    shares = blocks(column_tiles, per_share)
    partial = loss.new_empty((3, shares, rows))
    teacher = _teacher_arguments(inputs)
    student, _, weight, _, alpha, temperature, _, _ = inputs
    student, weight = unit_columns(student), loss if weight is None else weight.contiguous()
    temperature_tensor = isinstance(temperature, Tensor)

    def launch(moments: bool) -> None:
        _partial_kernel[(row_tiles, shares)](
            student, student.stride(0), row_stats, temperature, partial, rows, columns, per_share, moments,
            temperature_tensor, *teacher, num_warps=_WARPS,
        )  # fmt: skip

    with device_guard(student):
        if inputs.class_scale is not None:
            launch(True)
            wanted = label_scale(inputs.class_scale, inputs.labels)
            row_stats[TEACHER_SCALE] = wanted / _merged_std(partial, columns)
        launch(False)
        _merge_kernel[(blocks(rows, _ROWS),)](
            partial, loss, row_stats, weight, alpha, temperature, rows, shares, inputs.weight is not None,
            isinstance(alpha, Tensor), temperature_tensor, _ROWS,
        )  # fmt: skip
    return loss, row_stats, stats


def backward(grad_loss: Tensor, inputs: Inputs, row_stats: Tensor) -> Tensor:
    """Return the gradient of sum(grad_loss * loss) by the student's logits, (B, C) in their dtype, contiguous."""
    rows, columns = inputs.student.shape
    grad = inputs.student.new_empty((rows, columns))
    with device_guard(inputs.student):
        if rows:
            _backward_kernel[(blocks(rows, _ROWS), blocks(columns, _COLUMNS))](
                *loss_arguments(inputs, row_stats), grad_loss.contiguous(), row_stats, grad,
                *_teacher_arguments(inputs), num_warps=_WARPS,
            )  # fmt: skip
    return grad


def _teacher_arguments(inputs: Inputs) -> tuple[Any, ...]:
    """A kernel's features, head_weight, head_bias, depth, HAS_BIAS, WIDEN, and its tile sizes."""
    features, weight, bias = inputs.teacher
    assert features is not None
    assert weight is not None
    weight = weight.contiguous()
    return (
        features.contiguous(), weight, weight if bias is None else bias.contiguous(), features.shape[1],
        bias is not None, _widen(features), _ROWS, _COLUMNS, _DEPTH,
    )  # fmt: skip


def _widen(features: Tensor) -> bool:
    """Triton's interpreter holds a bfloat16 as an integer and would multiply those; a GPU has no such need."""
    return interpreting() and features.dtype == torch.bfloat16


def _merged_std(partial: Tensor, columns: int) -> Tensor:
    """Unbiased std per row from each share's count, mean and sum of squared deviations."""
    count, mean, m2 = partial
    centre = (count * mean).sum(0) / columns
    return ((m2 + count * (mean - centre) ** 2).sum(0) / (columns - 1)).sqrt()


@triton.jit
def _teacher_tile(features, head_weight, head_bias, row, row_ok, j, j_ok, depth, HAS_BIAS: tl.constexpr,
                  WIDEN: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr):  # fmt: skip
    """A tile (ROWS, COLUMNS) of features @ head_weight.T + head_bias, in float32."""
    tile = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, depth, DEPTH):
        k = first + tl.arange(0, DEPTH)
        f = tl.load(
            features + (row * depth)[:, None] + k[None, :], mask=row_ok[:, None] & (k < depth)[None, :], other=0.0
        )
        w = tl.load(
            head_weight + (j.to(tl.int64) * depth)[None, :] + k[:, None],
            mask=j_ok[None, :] & (k < depth)[:, None],
            other=0.0,
        )
        if WIDEN:
            f, w = f.to(tl.float32), w.to(tl.float32)
        tile = tl.dot(f, w, tile, input_precision="ieee")  # float32 stays float32; 16-bit inputs do not notice
    if HAS_BIAS:
        tile += tl.load(head_bias + j, mask=j_ok, other=0.0).to(tl.float32)[None, :]
    return tile


@triton.jit
def _partial_kernel(
    zs, stride_s, row_stats, temperature, partial, rows, columns, per_share,
    MOMENTS: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr,
    features, head_weight, head_bias, depth, HAS_BIAS: tl.constexpr, WIDEN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_ok = row < rows
    inv_t = 1.0 / read_scalar(temperature, TEMPERATURE_TENSOR)
    top_s = load_stat(row_stats, "STUDENT_TOP", rows, row, row_ok)
    scale = load_stat(row_stats, "TEACHER_SCALE", rows, row, row_ok)
    still = tl.zeros((ROWS,), tl.float32)  # the student's maximum is known, so its base does not move
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    cross = tl.zeros((ROWS,), tl.float32)
    begin = tl.program_id(1) * per_share * COLUMNS
    end = tl.minimum(begin + per_share * COLUMNS, columns)
    mean = tl.zeros((ROWS,), tl.float32)
    m2 = tl.zeros((ROWS,), tl.float32)
    for first in range(begin, end, COLUMNS):
        j = first + tl.arange(0, COLUMNS)
        j_ok = j < end
        ok = row_ok[:, None] & j_ok[None, :]
        w = _teacher_tile(
            features, head_weight, head_bias, row, row_ok, j, j_ok, depth, HAS_BIAS, WIDEN, ROWS, COLUMNS, DEPTH
        )
        if MOMENTS:
            seen = (first - begin).to(tl.float32)
            count = tl.minimum(end - first, COLUMNS).to(tl.float32)
            tile_mean = tl.sum(tl.where(ok, w, 0.0), axis=1) / count
            deviation = tl.where(ok, w - tile_mean[:, None], 0.0)
            delta = tile_mean - mean
            m2 += tl.sum(deviation * deviation, axis=1) + delta * delta * (seen * count / (seen + count))
            mean += delta * (count / (seen + count))
        else:
            z = tl.load(zs + (row * stride_s)[:, None] + j[None, :], mask=ok, other=0.0).to(tl.float32)
            w = tl.where(ok, w * scale[:, None], float("-inf"))
            top, total, cross = add_teacher(w, z - top_s[:, None], ok, still, still, top, total, cross, inv_t)
    if MOMENTS:
        top, total, cross = tl.zeros((ROWS,), tl.float32) + (end - begin), mean, m2
    place = partial + tl.program_id(1).to(tl.int64) * rows + row
    size = tl.num_programs(1).to(tl.int64) * rows
    tl.store(place, top, mask=row_ok)
    tl.store(place + size, total, mask=row_ok)
    tl.store(place + 2 * size, cross, mask=row_ok)


@triton.jit
def _merge_kernel(
    partial, loss, row_stats, weight, alpha, temperature, rows, shares,
    HAS_WEIGHT: tl.constexpr, ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_ok = row < rows
    a = read_scalar(alpha, ALPHA_TENSOR)
    t = read_scalar(temperature, TEMPERATURE_TENSOR)
    inv_t = 1.0 / t
    size = tl.cast(shares, tl.int64) * rows  # an argument of 1 is a constant, which has no `.to`
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    cross = tl.zeros((ROWS,), tl.float32)
    for share in range(shares):
        place = partial + share * rows + row
        share_top = tl.load(place, mask=row_ok, other=0.0)
        share_total = tl.load(place + size, mask=row_ok, other=0.0)
        share_cross = tl.load(place + 2 * size, mask=row_ok, other=0.0)
        new_top = tl.maximum(top, share_top)
        base = finite_base(new_top)
        shrink, share_shrink = tl.exp((top - base) * inv_t), tl.exp((share_top - base) * inv_t)
        cross = shrink * (cross + total * (finite_base(top) - base))
        cross += share_shrink * (share_cross + share_total * (finite_base(share_top) - base))
        total = total * shrink + share_total * share_shrink
        top = new_top
    total = tl.where(top == float("-inf"), float("nan"), total)
    log_sum_s = -tl.log(load_stat(row_stats, "STUDENT_INV_SUM_T", rows, row, row_ok))
    divergence = cross / total * inv_t - tl.log(total) + log_sum_s
    value = (1.0 - a) * tl.load(loss + row, mask=row_ok, other=0.0) + a * t * t * divergence
    if HAS_WEIGHT:
        value = value * tl.load(weight + row, mask=row_ok, other=0.0).to(tl.float32)
    tl.store(loss + row, value, mask=row_ok)
    store_stat(row_stats, "TEACHER_SHIFT", rows, row, row_ok, finite_base(top))
    store_stat(row_stats, "TEACHER_INV_SUM", rows, row, row_ok, 1.0 / total)


@triton.jit
def _backward_kernel(
    zs, stride_s, labels, stride_q, weight, alpha, temperature, smoothing, rows, columns,
    SOFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, ALPHA_TENSOR: tl.constexpr, TEMPERATURE_TENSOR: tl.constexpr,
    grad_loss, row_stats, grad,
    features, head_weight, head_bias, depth, HAS_BIAS: tl.constexpr, WIDEN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    row, row_ok, y, top_s, inv_t, ce, factor_1, kd = begin_gradient(
        grad_loss, weight, labels, row_stats, alpha, temperature, rows,
        True, SOFT, HAS_WEIGHT, ALPHA_TENSOR, TEMPERATURE_TENSOR, ROWS,
    )  # fmt: skip
    j = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    j_ok = j < columns
    ok = row_ok[:, None] & j_ok[None, :]
    w = _teacher_tile(
        features, head_weight, head_bias, row, row_ok, j, j_ok, depth, HAS_BIAS, WIDEN, ROWS, COLUMNS, DEPTH
    )
    z = tl.load(zs + (row * stride_s)[:, None] + j[None, :], mask=ok, other=0.0).to(tl.float32)
    q = label_part(labels, row * stride_q, y, j[None, :], ok, smoothing, columns, SOFT)
    value, d = student_gradient(z, q, top_s, ce, factor_1)
    value += teacher_gradient(d, w, kd, inv_t, row_stats, rows, row, row_ok)
    tl.store(grad + (row * columns)[:, None] + j[None, :], value.to(grad.dtype.element_ty), mask=ok)
