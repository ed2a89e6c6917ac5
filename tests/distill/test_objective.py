"""The objectives against float64 autograd of the formula written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from prunekd.distill import OBJECTIVES, ObjectiveSettings, create_objective, resolve_alpha
from prunekd.distill.alpha import AUTO_ALPHA


def written_out(
    student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor, s: ObjectiveSettings, scale: Tensor | None
) -> Tensor:
    """L_i of DESIGN's objective, term by term in float64."""
    if scale is not None:
        teacher = teacher / teacher.std(dim=1, keepdim=True) * scale[labels][:, None]
    classes = student.shape[1]
    onehot = F.one_hot(labels, classes).double()
    target = (1 - s.label_smoothing) * onehot + s.label_smoothing / classes
    ce = -(target * F.log_softmax(student, dim=1)).sum(1)
    p_teacher = F.softmax(teacher / s.temperature, dim=1)
    log_ratio = torch.log(p_teacher) - F.log_softmax(student / s.temperature, dim=1)
    kl = (p_teacher * log_ratio).sum(1)
    return weights * ((1 - s.alpha) * ce + s.alpha * s.temperature**2 * kl)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 9),
    classes=st.integers(2, 33),
    alpha=st.floats(0, 1),
    temperature=st.floats(0.5, 8),
    smoothing=st.floats(0, 0.5),
    reshape=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_kd_and_its_gradient_match_float64_autograd(
    batch: int, classes: int, alpha: float, temperature: float, smoothing: float, reshape: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    student = (3 * torch.randn(batch, classes, generator=generator)).requires_grad_()
    teacher = 3 * torch.randn(batch, classes, generator=generator)
    labels = torch.randint(classes, (batch,), generator=generator)
    weights = torch.rand(batch, generator=generator) + 0.5
    scale = torch.rand(classes, generator=generator) + 0.5 if reshape else None
    spec = ObjectiveSettings(alpha=alpha, temperature=temperature, label_smoothing=smoothing)

    losses = create_objective("kd", spec, scale)(student, teacher, labels, weights)
    losses.mean().backward()

    exact = student.detach().double().requires_grad_()
    expected = written_out(exact, teacher.double(), labels, weights.double(), spec, scale.double() if reshape else None)
    expected.mean().backward()
    torch.testing.assert_close(losses.double(), expected, rtol=2e-5, atol=2e-5)
    assert student.grad is not None
    torch.testing.assert_close(student.grad.double(), exact.grad, rtol=2e-4, atol=2e-6)


def test_hard_labels_are_cross_entropy_and_ignore_the_teacher() -> None:
    generator = torch.Generator().manual_seed(1)
    student, labels = torch.randn(6, 5, generator=generator), torch.tensor([0, 1, 2, 3, 4, 0])
    objective = create_objective("hard", ObjectiveSettings(label_smoothing=0.1))
    got = objective(student, torch.full((6, 5), float("nan")), labels, None)
    expected = F.cross_entropy(student.double(), labels, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    assert not objective.needs_teacher


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"alpha": 1.2}, "alpha is 1.2"), ({"temperature": 0.0}, "temperature is 0.0"), ({"label_smoothing": 1.0}, "1.0")],
)
def test_settings_out_of_range_are_named(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveSettings(**wrong)


def test_unknown_objective_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'kd'"):
        create_objective("kdd", ObjectiveSettings())
    assert set(OBJECTIVES) >= {"hard", "kd"}


def test_auto_alpha_interpolates_between_its_measured_points_and_never_rises_with_keep() -> None:
    for keep, alpha in AUTO_ALPHA.items():
        assert resolve_alpha("auto", keep)[0] == pytest.approx(alpha, abs=1e-3)
    values = [resolve_alpha("auto", keep)[0] for keep in np.linspace(0.02, 1, 50)]
    assert values == sorted(values, reverse=True)
    assert resolve_alpha(0.25, 0.1) == (0.25, "as set")
