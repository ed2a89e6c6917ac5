"""P1's theory on ridge regression, where everything has a closed form (Ben-Baruch et al., ICML 2025, section 3).

A student sees a fraction f of the data with targets (1 - a) y + a X theta_t; the teacher was fitted on a fraction of
its own. Mean squared errors over draws of the noise, in float64.
"""

import numpy as np
import pytest

DIMENSIONS, SAMPLES, NOISE, RIDGE, DRAWS = 40, 200, 1.0, 5.0, 300


def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y)


def student_error(student_fraction: float, teacher_fraction: float, alpha: float) -> float:
    """Mean squared error of the student's parameters over DRAWS draws; the same draws for every argument."""
    rng = np.random.default_rng(7)
    theta = rng.normal(size=DIMENSIONS) / np.sqrt(DIMENSIONS)
    errors = []
    for _ in range(DRAWS):
        x = rng.normal(size=(SAMPLES, DIMENSIONS))
        y = x @ theta + NOISE * rng.normal(size=SAMPLES)
        kept, taught = int(student_fraction * SAMPLES), int(teacher_fraction * SAMPLES)
        teacher = ridge(x[:taught], y[:taught])
        targets = (1 - alpha) * y[:kept] + alpha * x[:kept] @ teacher
        errors.append(np.sum((ridge(x[:kept], targets) - theta) ** 2))
    return float(np.mean(errors))


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_distillation_lowers_the_students_error(fraction: float) -> None:
    assert student_error(fraction, 1.0, alpha=1.0) < student_error(fraction, 1.0, alpha=0.0)


def test_distillation_helps_the_more_the_less_is_kept() -> None:
    gains = [student_error(f, 1.0, 0.0) - student_error(f, 1.0, 1.0) for f in (0.25, 0.5, 1.0)]
    assert gains[0] > gains[1] > gains[2] > 0


def test_error_falls_as_the_teacher_sees_more() -> None:
    errors = [student_error(0.25, teacher_fraction, 1.0) for teacher_fraction in (0.25, 0.5, 1.0)]
    assert errors[0] > errors[1] > errors[2]


def test_best_alpha_rises_as_less_is_kept() -> None:
    """With a teacher no better than the student's own fit at f = 1, the gain of a larger alpha is at small f."""
    grid = np.linspace(0, 1, 6)
    advantage = {f: student_error(f, 1.0, 0.4) - student_error(f, 1.0, 1.0) for f in (0.25, 1.0)}
    assert advantage[0.25] > advantage[1.0]
    at_small = [student_error(0.25, 1.0, alpha) for alpha in grid]
    assert np.argmin(at_small) == len(grid) - 1
