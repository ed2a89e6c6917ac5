"""Steps that the Triton kernels share: online softmax over blocks of a row's columns, cross entropy, statistics.

Rows are (ROWS,) vectors and blocks (ROWS, BLOCK) tiles; `ok` masks columns beyond the row's end. Sums over a row are
kept relative to the largest value so far, the "base", and rescaled when it grows. Nothing silences NaN or infinities.
"""

# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl


@triton.jit
def read_scalar(value, IS_TENSOR: tl.constexpr):
    """A scalar argument, which may live on the device."""
    if IS_TENSOR:
        result = tl.load(value).to(tl.float32)
    else:
        result = value
    return result


@triton.jit
def finite_base(top):
    """What to subtract from a row: its maximum, or 0 where nothing but -inf was seen (-inf - -inf would be NaN)."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def read_label(labels, row, row_ok, columns):
    """Integer labels, and whether each is a class: one that is not must not become an address, so it reads as 0."""
    y = tl.load(labels + row, mask=row_ok, other=0).to(tl.int64)
    known = (y >= 0) & (y < columns)
    return tl.where(known, y, 0), known


@triton.jit
def add_student(z, ok, top, sum_1, sum_t, sum_z, inv_t):
    """Take a block of the student's row into its maximum, its sums of exponentials at T = 1 and T, and its sum.

    Returns the block relative to the new base, the old base, the new one, and the four updated.
    """
    new_top = tl.maximum(top, tl.max(z, axis=1))
    base = finite_base(new_top)
    d = z - base[:, None]
    sum_1 = sum_1 * tl.exp(top - base) + tl.sum(tl.exp(d), axis=1)
    sum_t = sum_t * tl.exp((top - base) * inv_t) + tl.sum(tl.exp(d * inv_t), axis=1)
    return d, finite_base(top), base, new_top, sum_1, sum_t, sum_z + tl.sum(tl.where(ok, z, 0.0), axis=1)


@triton.jit
def add_soft_label(q, d, ok, first, before, base, mass, dot, y, best):
    """Take a block of a soft label into its mass, its product with the student's row, and its first largest entry."""
    dot += mass * (before - base) + tl.sum(tl.where(ok, q * d, 0.0), axis=1)
    mass += tl.sum(q, axis=1)
    q = tl.where(ok, q, float("-inf"))
    block_best = tl.max(q, axis=1)
    y = tl.where(block_best > best, first + tl.argmax(q, axis=1), y)
    return mass, dot, y, tl.maximum(best, block_best)


@triton.jit
def add_teacher(w, d_s, ok, before_s, base_s, top, total, cross, inv_t):
    """Take a block of the teacher's row (-inf beyond its end) into its maximum, its sum of exponentials at T, and the
    sum of exponential times (teacher - student), each relative to its base."""
    new_top = tl.maximum(top, tl.max(w, axis=1))
    base = finite_base(new_top)
    d = w - base[:, None]
    e = tl.exp(d * inv_t)
    shrink = tl.exp((top - base) * inv_t)
    cross = shrink * (cross + total * ((finite_base(top) - base) - (before_s - base_s)))
    # a class that the teacher rules out (-inf) adds nothing, as in PyTorch's xlogy
    cross += tl.sum(tl.where(e == 0.0, 0.0, e * d) - tl.where(ok, e * d_s, 0.0), axis=1)
    return new_top, total * shrink + tl.sum(e, axis=1), cross


@triton.jit
def cross_entropy(zs, start, y, row_ok, columns, base, sum_1, sum_z, mass, dot, smoothing, SOFT: tl.constexpr):
    """sum_j q'_j * (lse - z_j) with smoothed targets q', and their mass; everything relative to the row's maximum."""
    log_sum = tl.log(sum_1)
    if SOFT:
        value = mass * log_sum - dot
    else:
        value = log_sum - (tl.load(zs + start + y, mask=row_ok, other=0.0).to(tl.float32) - base)
        mass = tl.full(sum_1.shape, 1.0, tl.float32)
    even = tl.where(smoothing > 0.0, log_sum - (sum_z / columns - base), 0.0)  # no 0 * inf when smoothing is off
    return (1.0 - smoothing) * value + smoothing * even, (1.0 - smoothing) * mass + smoothing


@triton.jit
def label_part(labels, start, y, j, ok, smoothing, columns, SOFT: tl.constexpr):
    """Smoothed targets at columns j."""
    if SOFT:
        q = tl.load(labels + start[:, None] + j, mask=ok, other=0.0).to(tl.float32)
    else:
        q = tl.where(j == y[:, None], 1.0, 0.0)
    return (1.0 - smoothing) * q + smoothing / columns


@triton.jit
def student_gradient(z, q, ce, row_stats, rows, row, row_ok):
    """The cross entropy's gradient at logits z with targets q, and z relative to its row's base."""
    d = z - tl.load(row_stats + row, mask=row_ok, other=0.0)[:, None]
    inv_sum = tl.load(row_stats + rows + row, mask=row_ok, other=0.0)
    mass = tl.load(row_stats + 6 * rows + row, mask=row_ok, other=0.0)
    return (ce * mass * inv_sum)[:, None] * tl.exp(d) - ce[:, None] * q, d


@triton.jit
def teacher_gradient(d, w, kd, inv_t, row_stats, rows, row, row_ok):
    """The divergence's gradient, from the student's logits relative to their base and the teacher's logits w."""
    inv_s = tl.load(row_stats + 2 * rows + row, mask=row_ok, other=0.0)
    top_t = tl.load(row_stats + 3 * rows + row, mask=row_ok, other=0.0)
    inv_t_sum = tl.load(row_stats + 4 * rows + row, mask=row_ok, other=0.0)
    scale = tl.load(row_stats + 5 * rows + row, mask=row_ok, other=0.0)
    e_t = tl.exp((w * scale[:, None] - top_t[:, None]) * inv_t)
    return (kd * inv_s)[:, None] * tl.exp(d * inv_t) - (kd * inv_t_sum)[:, None] * e_t


@triton.jit
def store_training_stats(
    stats, rows, row, zs, labels, start_s, start_q, y, base, inv_sum, row_ok, columns,
    SOFT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write correct, p_y, margin, el2n; a second walk along the student's row, which the first has left in cache."""
    best_before = tl.full((ROWS,), float("-inf"), tl.float32)
    best_after = tl.full((ROWS,), float("-inf"), tl.float32)
    rest = tl.zeros((ROWS,), tl.float32)
    squares = tl.zeros((ROWS,), tl.float32)
    for first in range(0, columns, BLOCK):
        j = first + tl.arange(0, BLOCK)[None, :]
        ok = row_ok[:, None] & (j < columns)
        z = tl.load(zs + start_s[:, None] + j, mask=ok, other=float("-inf")).to(tl.float32)
        best_before = tl.maximum(best_before, tl.max(tl.where(j < y[:, None], z, float("-inf")), axis=1))
        best_after = tl.maximum(best_after, tl.max(tl.where(j > y[:, None], z, float("-inf")), axis=1))
        p = tl.where(ok, tl.exp(z - base[:, None]) * inv_sum[:, None], 0.0)
        if SOFT:
            difference = p - tl.load(labels + start_q[:, None] + j, mask=ok, other=0.0).to(tl.float32)
            squares += tl.sum(difference * difference, axis=1)
        else:  # 1 - p_y as the sum of the others: no cancellation when the student is nearly sure
            p = tl.where(j == y[:, None], 0.0, p)
            rest += tl.sum(p, axis=1)
            squares += tl.sum(p * p, axis=1)
    z_y = tl.load(zs + start_s + y, mask=row_ok, other=0.0).to(tl.float32)
    correct = ((z_y > best_before) | (y == 0)) & (z_y >= best_after)
    tl.store(stats + row, correct.to(tl.float32), mask=row_ok)
    tl.store(stats + rows + row, tl.exp(z_y - base) * inv_sum, mask=row_ok)
    tl.store(stats + 2 * rows + row, z_y - tl.maximum(best_before, best_after), mask=row_ok)
    tl.store(stats + 3 * rows + row, tl.sqrt(squares + rest * rest), mask=row_ok)
