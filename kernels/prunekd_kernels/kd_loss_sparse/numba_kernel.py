"""`kd_loss_sparse` for CPUs, compiled by Numba: `kd_loss`'s loops over the student's row, K terms for the teacher."""

# mypy: disallow-untyped-defs=False

import numpy as np
import torch
from torch import Tensor

from .._numba_math import STRICT, exp, jit, load, maximum, store
from .._numba_rows import (
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
from .._parallel import open_region, run_rows

ROW_STATS = 9  # max_s, 1/sum_1, 1/sum_T, mass_t, share of every other class, shift and 1/sum of top K, scale, mass of q


def forward(
    student: Tensor,
    topk_ids: Tensor,
    topk_logits: Tensor,
    logsumexp: Tensor | None,
    labels: Tensor,
    weight: Tensor | None,
    scale: Tensor | None,
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
        _forward_rows, _forward_team, rows, 2 * columns, columns, *matrix_arguments(student),
        *_topk(topk_ids, topk_logits),
        *vector_arguments(logsumexp), *label_arguments(labels), *vector_arguments(weight), *vector_arguments(scale),
        np.float32(alpha), np.float32(temperature), np.float32(label_smoothing),
        loss.numpy(), row_stats.numpy(), want_stats, stats.numpy(),
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
    alpha: float,
    temperature: float,
    label_smoothing: float,
) -> Tensor:
    """Return the gradient of sum(grad_loss * loss) by the student's logits, (B, C) in their dtype, contiguous."""
    rows, columns = student.shape
    grad = torch.empty(rows, columns, dtype=student.dtype)
    run_rows(
        _backward_rows, _backward_team, rows, 2 * columns, columns, grad_loss.float().contiguous().numpy(),
        *matrix_arguments(student), *_topk(topk_ids, topk_logits), *label_arguments(labels), *vector_arguments(weight),
        row_stats.numpy(), np.float32(alpha), np.float32(temperature), np.float32(label_smoothing),
        matrix_arguments(grad)[0],
    )  # fmt: skip
    return grad


def _topk(ids: Tensor, logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return ids.long().contiguous().numpy(), logits.detach().float().contiguous().numpy()


@jit(STRICT)
def _forward_rows(
    first, last, columns, zs, stride_s, ids, values, spread, logsumexp, hard, soft, q, stride_q, has_weight, weight,
    has_scale, scales, alpha, temperature, smoothing, loss, row_stats, want_stats, stats,
):  # fmt: skip
    inv_t = ONE / temperature
    kept = ids.shape[1]
    for i in range(first, last):
        s, r, y = i * stride_s, i * stride_q, hard[i]
        top_s = row_max(zs, s, s + columns)
        sum_1 = sum_exp(zs, s, columns, top_s, ONE)
        sum_s = sum_1 if temperature == ONE else sum_exp(zs, s, columns, top_s, inv_t)
        scale = scales[i] if has_scale else ONE
        shift, inv_k, logs = ZERO, ONE, ZERO
        if spread:
            shift = logsumexp[i]
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
        missing = max(ONE - mass_t, ZERO) if spread and columns > kept else ZERO
        share = missing / np.float32(max(columns - kept, 1))
        divergence = ZERO
        if share > ZERO:  # every class at the even share; the kept ones are corrected below
            divergence = missing * np.log(share) - share * inv_t * (
                row_sum(zs, s, columns) - np.float32(columns) * top_s
            )
        for k in range(kept):
            log_p = values[i, k] * scale * inv_t - shift - logs
            p = exp(values[i, k] * scale * inv_t - shift) * inv_k
            divergence += (ZERO if p == ZERO else p * log_p) - (p - share) * (load(zs, s + ids[i, k]) - top_s) * inv_t
        mass_t += missing
        divergence += mass_t * np.log(sum_s)
        mass = row_sum(q, r, columns) if soft else ONE
        value = cross_entropy(zs, s, columns, y, top_s, sum_1, soft, q, r, mass, smoothing)
        if smoothing > ZERO:
            mass = (ONE - smoothing) * mass + smoothing
        value = (ONE - alpha) * value + alpha * temperature * temperature * divergence
        loss[i] = value * weight[i] if has_weight else value
        row_stats[0, i], row_stats[1, i], row_stats[2, i] = top_s, ONE / sum_1, ONE / sum_s
        row_stats[3, i], row_stats[4, i], row_stats[5, i] = mass_t, share, shift
        row_stats[6, i], row_stats[7, i], row_stats[8, i] = inv_k, scale, mass
        if want_stats:
            row_training_stats(zs, s, columns, y, top_s, ONE / sum_1, soft, q, r, stats, i)


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


@jit(STRICT)
def _backward_rows(
    first, last, columns, grad_loss, zs, stride_s, ids, values, hard, soft, q, stride_q, has_weight, weight,
    row_stats, alpha, temperature, smoothing, grad,
):  # fmt: skip
    inv_t = ONE / temperature
    for i in range(first, last):
        s, r, g, y = i * stride_s, i * stride_q, i * columns, hard[i]
        upstream = grad_loss[i] * weight[i] if has_weight else grad_loss[i]
        ce, kd = upstream * (ONE - alpha), upstream * alpha * temperature
        c_q, c_0 = ce * (ONE - smoothing), ce * smoothing / np.float32(columns)
        even = kd * row_stats[4, i]
        top = row_stats[0, i]
        factor_1 = ce * row_stats[8, i] * row_stats[1, i]
        factor_t = kd * row_stats[3, i] * row_stats[2, i]
        _grad_row(zs, s, columns, top, inv_t, factor_1, factor_t, soft, q, r, c_q, c_0 + even, grad, g)
        # entries with a term of their own are computed anew: a 16-bit gradient is rounded once
        if not soft:
            part = _student_part(load(zs, s + y), top, inv_t, factor_1, factor_t)
            store(grad, g + y, part - c_q - c_0 - even)
        for k in range(ids.shape[1]):
            j = ids[i, k]
            label = load(q, r + j) if soft else (ONE if j == y else ZERO)
            p = exp(values[i, k] * row_stats[7, i] * inv_t - row_stats[5, i]) * row_stats[6, i]
            part = _student_part(load(zs, s + j), top, inv_t, factor_1, factor_t)
            store(grad, g + j, part - c_q * label - c_0 - kd * p)


@jit(STRICT)
def _forward_team(args, num_rows, chunk, size, gomp_parallel):
    open_region(_forward_rows, args, num_rows, chunk, size, gomp_parallel)


@jit(STRICT)
def _backward_team(args, num_rows, chunk, size, gomp_parallel):
    open_region(_backward_rows, args, num_rows, chunk, size, gomp_parallel)
