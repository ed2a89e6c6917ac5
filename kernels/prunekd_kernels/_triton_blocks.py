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
