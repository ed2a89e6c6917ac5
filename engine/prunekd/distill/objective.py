"""Objectives: per-sample losses of a student that may have a teacher.

`kd` is  L = w [(1 - a) CE(z_s, y; smoothing) + a T^2 KL(softmax(z_t / T) || softmax(z_s / T))]   (Hinton et al. 2015),
with the teacher's logits reshaped to z_t / std(z_t) * s_y first if class scales are given (P2, MDSLR, ICLR 2025).
`hard` is its a = 0 case: labels only, no teacher.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from prunekd.common.registry import unknown
from prunekd_kernels import kd_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSettings:
    """Weights of an objective.

    alpha: weight of the teacher's term, 0 to 1; temperature: softens both distributions, > 0; label_smoothing:
    mass spread over all classes in the label's term, 0 to 1 (exclusive).
    """

    alpha: float = 0.5
    temperature: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"alpha is {self.alpha}; it weighs the teacher's term and must lie in [0, 1]")
        if not self.temperature > 0.0:
            raise ValueError(f"temperature is {self.temperature}; it must be positive (4 on CIFAR, 1 on ImageNet)")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must lie in [0, 1)")


class Objective(Protocol):
    """student logits (B, C), teacher logits (B, C) or None, labels (B,), weights (B,) or None -> loss (B,) float32."""

    needs_teacher: bool

    def __call__(self, student: Tensor, teacher: Tensor | None, labels: Tensor, weights: Tensor | None) -> Tensor: ...


class HardLabels:
    """Cross-entropy with the (smoothed) label; the teacher's logits are not looked at."""

    needs_teacher = False

    def __init__(self, settings: ObjectiveSettings, class_scale: Tensor | None = None) -> None:
        self.settings = settings

    def __call__(self, student: Tensor, teacher: Tensor | None, labels: Tensor, weights: Tensor | None) -> Tensor:
        """See Objective."""
        return kd_loss(
            student,
            None,
            labels,
            alpha=0.0,
            temperature=1.0,
            label_smoothing=self.settings.label_smoothing,
            weight=weights,
        )


class Distillation:
    """Cross-entropy and T^2 KL to the teacher; `class_scale` (C,) switches P2's reshaping on."""

    needs_teacher = True

    def __init__(self, settings: ObjectiveSettings, class_scale: Tensor | None = None) -> None:
        self.settings = settings
        self.class_scale = class_scale

    def __call__(self, student: Tensor, teacher: Tensor | None, labels: Tensor, weights: Tensor | None) -> Tensor:
        """See Objective."""
        assert teacher is not None
        return kd_loss(
            student,
            teacher,
            labels,
            alpha=self.settings.alpha,
            temperature=self.settings.temperature,
            label_smoothing=self.settings.label_smoothing,
            weight=weights,
            class_scale=self.class_scale,
        )


OBJECTIVES: dict[str, Callable[[ObjectiveSettings, Tensor | None], Objective]] = {
    "hard": HardLabels,
    "kd": Distillation,
}


def create_objective(name: str, settings: ObjectiveSettings, class_scale: Tensor | None = None) -> Objective:
    """Build the objective registered under `name`; ValueError with the nearest name if there is none."""
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name](settings, class_scale)
