"""kd_loss on every backend against float64, its special values, its shapes, its errors."""

from functools import partial

import pytest
import torch
from torch import Tensor

from prunekd_kernels import BackendUnavailableError, kd_loss

kd_loss_reference = partial(kd_loss, backend="torch")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 2), (5, 10), (70, 37), (3, 1000), (2, 5003)]  # several rows per program, one block, several blocks


def make_options(kind: str, rows: int, classes: int, generator: torch.Generator) -> tuple[dict, Tensor]:
    """Options of one kind of call, and labels for it."""
    hard = torch.randint(0, classes, (rows,), generator=generator)
    soft = torch.softmax(3 * torch.randn(rows, classes, generator=generator), 1)
    weight = torch.rand(rows, generator=generator) + 0.1
    scale = torch.rand(classes, generator=generator) + 0.5
    return {
        "plain": ({"alpha": 0.5, "temperature": 1.0}, hard),
        "paper": ({"alpha": 0.9, "temperature": 4.0, "class_scale": scale}, hard),
        "smooth": ({"alpha": 0.3, "temperature": 2.5, "label_smoothing": 0.1, "weight": weight}, hard.int()),
        "mixup": ({"alpha": 0.6, "temperature": 2.0, "weight": weight}, soft),
        "all": (
            {"alpha": torch.tensor(0.7), "temperature": torch.tensor(3.0), "label_smoothing": 0.2, "weight": weight,
             "class_scale": scale}, soft,
        ),
    }[kind]  # fmt: skip


def to(device: torch.device, options: dict) -> dict:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in options.items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("kind", ["plain", "paper", "smooth", "mixup", "all"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_matches_float64(backend, device, dtype, kind, shape, generator, run, assert_close):
    student = (3 * torch.randn(shape, generator=generator)).to(dtype)
    teacher = 3 * torch.randn(shape, generator=generator)
    teacher[:, 0] += 9.0  # dividing by the std of two nearly equal logits would leave no digits to compare
    teacher = teacher.to(dtype)
    options, labels = make_options(kind, *shape, generator)
    wanted = run(kd_loss_reference, student.double(), teacher.double(), labels, **options)
    got = run(
        kd_loss, student.to(device), teacher.to(device), labels.to(device), **to(device, options), backend=backend
    )
    assert_close(got, wanted, dtype)


@pytest.mark.parametrize("backend", ["numba"])
@pytest.mark.parametrize("shape", [(600, 1000), (7, 21841), (3, 50000)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_matches_float64_at_full_size(backend, shape, generator, run, assert_close):
    student, teacher = 3 * torch.randn(2, *shape, generator=generator)
    labels = torch.randint(0, shape[1], shape[:1], generator=generator)
    for temperature in (1.0, 4.0):
        options = {"alpha": 0.4, "temperature": temperature}
        wanted = run(kd_loss_reference, student.double(), teacher.double(), labels, **options)
        assert_close(run(kd_loss, student, teacher, labels, **options, backend=backend), wanted, torch.float32)


def test_no_teacher_is_cross_entropy(backend, device, generator, run, assert_close):
    student = 3 * torch.randn(9, 33, generator=generator)
    labels = torch.randint(0, 33, (9,), generator=generator)
    wanted = run(torch.nn.functional.cross_entropy, student.double(), labels, reduction="none", label_smoothing=0.1)
    got = run(kd_loss, student.to(device), None, labels.to(device), alpha=0.0, temperature=1.0, label_smoothing=0.1,
              backend=backend)  # fmt: skip
    assert_close(got, wanted, torch.float32)


def test_mixed_dtypes_and_large_logits(backend, device, generator, run, assert_close):
    """A teacher in another precision; logits of 1e4, where log-sum-exp kept as one float32 would lose p's digits."""
    student = 3 * torch.randn(6, 50, generator=generator) + 1e4
    teacher = (3 * torch.randn(6, 50, generator=generator)).half()
    labels = torch.randint(0, 50, (6,), generator=generator)
    wanted = run(kd_loss_reference, student.double(), teacher.double(), labels, alpha=0.5, temperature=2.0)
    got = run(kd_loss, student.to(device), teacher.to(device), labels.to(device), alpha=0.5, temperature=2.0,
              backend=backend)  # fmt: skip
    assert_close(got, wanted, torch.float32)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_stats(backend, device, soft, generator):
    rows, classes = 40, 5003
    student = 4 * torch.randn(rows, classes, generator=generator)
    student[:10] = student[:10].round()  # ties
    hard = student.argmax(1)
    hard[::2] = torch.randint(0, classes, hard[::2].shape, generator=generator)
    student[1, hard[1]] = 40.0  # nearly sure: 1 - p_y must not cancel
    labels = hard
    if soft:
        labels = torch.softmax(torch.randn(rows, classes, generator=generator), 1)
        labels[torch.arange(rows), hard] = 1.0
    loss, stats = kd_loss(student.to(device), None, labels.to(device), alpha=0.0, temperature=1.0, stats=True,
                          backend=backend)  # fmt: skip
    p = torch.softmax(student.double(), 1)
    target = labels.double() if soft else torch.nn.functional.one_hot(hard, classes).double()
    others = student.scatter(1, hard[:, None], float("-inf"))
    z_y = student.gather(1, hard[:, None])[:, 0]
    exact = 5e-6 if backend == "torch" else 2e-6  # PyTorch's own softmax sums with less care than the kernels
    torch.testing.assert_close(stats.p_y.cpu().double(), p.gather(1, hard[:, None])[:, 0], atol=1e-7, rtol=exact)
    torch.testing.assert_close(stats.margin.cpu(), z_y - others.amax(1))
    torch.testing.assert_close(stats.el2n.cpu().double(), (p - target).norm(dim=1), rtol=2e-5,
                               atol=1e-6 if backend == "torch" else 1e-12)  # fmt: skip
    first_best = torch.tensor([int((row == row.max()).nonzero()[0]) for row in student])
    assert stats.correct.dtype == torch.bool
    assert torch.equal(stats.correct.cpu(), first_best == hard)
    assert not loss.requires_grad


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("student_value", "teacher_value", "at_label"),
    [(-INF, 0.0, False), (-INF, -INF, False), (0.0, -INF, False), (0.0, -INF, True), (-INF, 0.0, True),
     (INF, 0.0, False), (0.0, INF, False), (NAN, 0.0, False), (0.0, NAN, False), (NAN, NAN, True)],
)  # fmt: skip
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_special_values_as_pytorch(
    backend, device, student_value, teacher_value, at_label, smoothing, temperature, generator, run
):
    student, teacher = torch.randn(2, 4, 40, generator=generator)
    labels = torch.tensor([0, 7, 20, 39])
    column = labels if at_label else (labels + 3) % 40
    student[torch.arange(4), column] = student_value
    teacher[torch.arange(4), column] = teacher_value
    options = {"temperature": temperature, "label_smoothing": smoothing}
    for with_teacher in (teacher, None):
        alpha = 0.5 if with_teacher is not None else 0.0
        wanted = run(kd_loss_reference, student, with_teacher, labels, alpha=alpha, **options)
        on_device = None if with_teacher is None else with_teacher.to(device)
        got = run(kd_loss, student.to(device), on_device, labels.to(device), alpha=alpha, **options, backend=backend)
        torch.testing.assert_close(got.loss, wanted.loss, equal_nan=True, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.grad, wanted.grad, equal_nan=True, rtol=1e-5, atol=1e-6)


def test_row_of_minus_infinity_is_nan(backend, device, run):
    student = torch.full((2, 20), -INF)
    student[1] = 0.0
    got = run(kd_loss, student.to(device), torch.zeros(2, 20, device=device), torch.tensor([3, 3], device=device),
              alpha=0.5, temperature=2.0, backend=backend)  # fmt: skip
    assert torch.isnan(got.loss[0])
    assert torch.isnan(got.grad[0]).all()
    assert torch.isfinite(got.grad[1]).all()


def test_empty_batch(backend, device, run):
    got = run(kd_loss, torch.empty(0, 7, device=device), torch.empty(0, 7, device=device),
              torch.empty(0, dtype=torch.long, device=device), alpha=0.5, temperature=1.0, backend=backend)  # fmt: skip
    assert got.loss.shape == (0,)
    assert got.grad.shape == (0, 7)


@pytest.mark.parametrize("layout", ["wider rows", "every other row", "expanded", "transposed"])
def test_rows_need_not_be_contiguous(backend, device, layout, generator, run):
    base = torch.randn(12, 60, generator=generator)
    view = {
        "wider rows": lambda t: t[:, 5:45],
        "every other row": lambda t: t[::2, :40],
        "expanded": lambda t: t[:1, :40].expand(6, 40),
        "transposed": lambda t: t.t()[:40, :10],
    }[layout]
    teacher = torch.randn(12, 60, generator=generator)
    student = view(base)
    labels = torch.randint(0, student.shape[1], student.shape[:1], generator=generator)
    wanted = run(kd_loss_reference, student.double(), view(teacher).double(), labels, alpha=0.5, temperature=2.0)
    leaf = base.to(device).requires_grad_()
    loss = kd_loss(view(leaf), view(teacher.to(device)), labels.to(device), alpha=0.5, temperature=2.0, backend=backend)
    torch.testing.assert_close(loss.detach().cpu().double(), wanted.loss, rtol=3e-6, atol=3e-6)
    upstream = torch.linspace(0.5, 1.5, loss.numel(), device=device)
    (grad,) = torch.autograd.grad((loss * upstream).sum(), leaf)
    expected = base.detach().double().requires_grad_()
    (view(expected) * wanted.grad).sum().backward()
    torch.testing.assert_close(grad.cpu().double(), expected.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [-1, 10])
def test_label_out_of_range_raises_on_cpu(backend, device, wrong):
    if device.type == "cuda":
        pytest.skip("documented: NaN on a GPU")
    labels = torch.tensor([0, wrong, 3])
    with pytest.raises(ValueError, match=f"labels hold {wrong}.*10 classes"):
        kd_loss(torch.zeros(3, 10), torch.zeros(3, 10), labels, alpha=0.5, temperature=1.0, backend=backend)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.5}, "alpha=1.5.*0 to 1"),
        ({"alpha": torch.ones(2)}, "0-d tensor"),
        ({"temperature": 0.0}, "temperature=0.0.*positive"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"teacher_logits": None}, "teacher_logits is None"),
        ({"teacher_logits": torch.zeros(3, 11)}, "same classes"),
        ({"student_logits": torch.zeros(3, 1)}, "C >= 2"),
        ({"student_logits": torch.zeros(3, 10, dtype=torch.int32)}, "dtype torch.int32"),
        ({"labels": torch.zeros(3)}, "expected int32 or int64"),
        ({"labels": torch.zeros(4, dtype=torch.long)}, r"expected one per row, \(3,\)"),
        ({"weight": torch.zeros(2)}, "weight has shape"),
        ({"class_scale": torch.zeros(3)}, "expected one per class"),
        ({"backend": "cuda"}, "unknown"),
    ],
)
def test_errors_name_value_and_range(changes, message):
    arguments = {
        "student_logits": torch.zeros(3, 10), "teacher_logits": torch.zeros(3, 10),
        "labels": torch.zeros(3, dtype=torch.long), "alpha": 0.5, "temperature": 1.0,
    } | changes  # fmt: skip
    with pytest.raises(ValueError, match=message):
        kd_loss(**arguments)


def test_float64_goes_to_torch_and_not_to_a_kernel():
    student = torch.randn(3, 5, dtype=torch.float64)
    labels = torch.zeros(3, dtype=torch.long)
    assert kd_loss(student, student, labels, alpha=0.5, temperature=1.0).dtype == torch.float64
    with pytest.raises(BackendUnavailableError, match="backend='torch'"):
        kd_loss(student, student, labels, alpha=0.5, temperature=1.0, backend="numba")


@pytest.mark.parametrize("kind", ["plain", "paper", "smooth", "mixup", "all"])
def test_reference_gradcheck(kind, generator):
    student, teacher = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    options, labels = make_options(kind, 3, 6, generator)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: kd_loss_reference(z, teacher, labels, **options), student)


def test_only_the_student_gets_a_gradient(backend, device, generator):
    student, teacher = torch.randn(2, 4, 8, generator=generator).to(device)
    student.requires_grad_()
    teacher.requires_grad_()
    labels = torch.zeros(4, dtype=torch.long, device=device)
    kd_loss(student, teacher, labels, alpha=0.5, temperature=2.0, backend=backend).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_fp16_under_a_grad_scaler_loses_no_gradients(backend, device, generator):
    """At B = 1024 most gradients are subnormal in fp16; multiplied by the scaler's factor before rounding, none are."""
    rows, classes = 1024, 100
    student = torch.randn(rows, classes, generator=generator).half()
    teacher = torch.randn(rows, classes, generator=generator).half()
    labels = torch.randint(0, classes, (rows,), generator=generator)
    exact = student.double().requires_grad_()
    kd_loss_reference(exact, teacher.double(), labels, alpha=0.5, temperature=2.0).mean().backward()
    leaf = student.to(device).requires_grad_()
    scale = 2.0**16
    loss = kd_loss(leaf, teacher.to(device), labels.to(device), alpha=0.5, temperature=2.0, backend=backend)
    (loss.mean() * scale).backward()
    got = leaf.grad.cpu().double() / scale
    assert not ((got == 0) & (exact.grad.abs() > 1e-11)).any()
    assert (got - exact.grad).norm() / exact.grad.norm() < 2.0**-10
