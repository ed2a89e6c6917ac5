"""teacher_head_kd on every backend against float64 logits made in full."""

from functools import partial

import pytest
import torch

from prunekd_kernels import kd_loss, teacher_head_kd

teacher_head_kd_reference = partial(teacher_head_kd, backend="torch")


@pytest.mark.parametrize("shape", [(1, 2, 3), (5, 10, 16), (70, 300, 40)], ids=str)
@pytest.mark.parametrize("kind", ["plain", "all"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_matches_float64(backend, device, shape, kind, bias, generator, run, assert_close):
    rows, classes, depth = shape
    student = 3 * torch.randn(rows, classes, generator=generator)
    features = torch.randn(rows, depth, generator=generator)
    weight = torch.randn(classes, depth, generator=generator)
    weight[0] += 2.0 * features[0]  # no two classes alike, or the std of two logits leaves no digits
    offset = torch.randn(classes, generator=generator) if bias else None
    labels = torch.randint(0, classes, (rows,), generator=generator)
    options: dict = {"alpha": 0.6, "temperature": 2.0}
    if kind == "all":
        labels = torch.softmax(torch.randn(rows, classes, generator=generator), 1)
        options |= {"label_smoothing": 0.1, "sample_weight": torch.rand(rows, generator=generator) + 0.1}
        options |= {"class_scale": torch.rand(classes, generator=generator) + 0.5} if classes > 2 else {}
    wanted = run(
        teacher_head_kd_reference, student.double(), features.double(), weight.double(),
        None if offset is None else offset.double(), labels, **options,
    )  # fmt: skip
    got = run(
        teacher_head_kd, student.to(device), features.to(device), weight.to(device),
        None if offset is None else offset.to(device), labels.to(device), backend=backend,
        **{key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in options.items()},
    )  # fmt: skip
    # the teacher's logits are sums of float32 products, in an order of each backend's own
    torch.testing.assert_close(got.loss.double(), wanted.loss, rtol=2e-5, atol=2e-5)
    assert (got.grad.double() - wanted.grad).norm() < 2e-5 * wanted.grad.norm().clamp(min=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:])
def test_16_bit_is_kd_loss_on_16_bit_logits(backend, device, dtype, generator, run):
    """The logits of a 16-bit teacher carry its rounding (2^-8 or 2^-11 of about 5); the loss may not add to that."""
    student = (3 * torch.randn(40, 200, generator=generator)).to(dtype)
    features, weight = torch.randn(40, 64, generator=generator), torch.randn(200, 64, generator=generator) / 3
    features, weight = features.to(dtype), weight.to(dtype)
    labels = torch.randint(0, 200, (40,), generator=generator)
    teacher = features.double() @ weight.double().t()
    wanted = run(kd_loss, student.double(), teacher, labels, alpha=0.6, temperature=2.0)
    got = run(teacher_head_kd, student.to(device), features.to(device), weight.to(device), None, labels.to(device),
              alpha=0.6, temperature=2.0, backend=backend)  # fmt: skip
    unit = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-11
    assert (got.loss.double() - wanted.loss).abs().max() < 20 * unit
    assert (got.grad.double() - wanted.grad).norm() / wanted.grad.norm() < 4 * unit


def test_many_row_blocks_on_the_cpu(generator, run, assert_close):
    student = torch.randn(70, 50000, generator=generator)
    features, weight = torch.randn(70, 8, generator=generator), torch.randn(50000, 8, generator=generator)
    labels = torch.randint(0, 50000, (70,), generator=generator)
    wanted = run(kd_loss, student, features @ weight.t(), labels, alpha=0.5, temperature=1.0, backend="numba")
    got = run(teacher_head_kd, student, features, weight, None, labels, alpha=0.5, temperature=1.0, backend="numba")
    torch.testing.assert_close(got.loss, wanted.loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-4, atol=1e-7)


def test_empty_batch(backend, device, run):
    got = run(teacher_head_kd, torch.empty(0, 9, device=device), torch.empty(0, 4, device=device),
              torch.zeros(9, 4, device=device), None, torch.empty(0, dtype=torch.long, device=device), alpha=0.5,
              temperature=1.0, backend=backend)  # fmt: skip
    assert got.loss.shape == (0,)
    assert got.grad.shape == (0, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": torch.zeros(10, 5)}, r"expected \(C, D\) = \(10, 4\)"),
        ({"bias": torch.zeros(4)}, "bias has shape"),
        ({"weight": torch.zeros(10, 4).half()}, "cast them to one"),
        ({"teacher_features": torch.zeros(2, 4)}, r"expected \(3, D\)"),
        ({"labels": torch.tensor([0, 10, 0])}, "labels hold 10"),
    ],
)
def test_errors_name_value_and_remedy(changes, message):
    arguments = {
        "student_logits": torch.zeros(3, 10), "teacher_features": torch.zeros(3, 4), "weight": torch.zeros(10, 4),
        "bias": None, "labels": torch.zeros(3, dtype=torch.long), "alpha": 0.5, "temperature": 1.0,
    } | changes  # fmt: skip
    with pytest.raises(ValueError, match=message):
        teacher_head_kd(**arguments)
