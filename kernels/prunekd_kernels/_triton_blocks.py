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
def stat_place(row_stats, NAME: tl.constexpr, rows, row):
    """Where a statistic of a row is kept: `_stats`'s numbers by their names.

    They stand here once more because Triton compares each global constant at each launch (1 us), and does not see that
    a number in another module has changed when it looks for a compiled kernel on disk.
    """
    place = row_stats + row
    if NAME == "STUDENT_TOP":
        place += 0 * rows
    elif NAME == "STUDENT_INV_SUM":
        place += 1 * rows
    elif NAME == "STUDENT_INV_SUM_T":
        place += 2 * rows
    elif NAME == "LABEL_MASS":
        place += 3 * rows
    elif NAME == "TEACHER_SHIFT":
        place += 4 * rows
    elif NAME == "TEACHER_INV_SUM":
        place += 5 * rows
    elif NAME == "TEACHER_SCALE":
        place += 6 * rows
    elif NAME == "TEACHER_MASS":
        place += 7 * rows
    elif NAME == "TEACHER_SHARE":
        place += 8 * rows
    elif NAME == "CORRECT":
        place += 0 * rows
    elif NAME == "P_Y":
        place += 1 * rows
    elif NAME == "MARGIN":
        place += 2 * rows
    elif NAME == "EL2N":
        place += 3 * rows
    else:
        tl.static_assert(False, "no such row statistic")
    return place


@triton.jit
def load_stat(row_stats, NAME: tl.constexpr, rows, row, row_ok):
    """A row statistic by its name."""
    return tl.load(stat_place(row_stats, NAME, rows, row), mask=row_ok, other=0.0)


@triton.jit
def store_stat(row_stats, NAME: tl.constexpr, rows, row, row_ok, value):
    """Write a row statistic by its name."""
    tl.store(stat_place(row_stats, NAME, rows, row), value, mask=row_ok)


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
    store_stat(stats, "CORRECT", rows, row, row_ok, correct.to(tl.float32))
    store_stat(stats, "P_Y", rows, row, row_ok, tl.exp(z_y - base) * inv_sum)
    store_stat(stats, "MARGIN", rows, row, row_ok, z_y - tl.maximum(best_before, best_after))
    store_stat(stats, "EL2N", rows, row, row_ok, tl.sqrt(squares + rest * rest))
