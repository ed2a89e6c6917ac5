"""The definition of every distillation loss in plain PyTorch: any device, float64; the "torch" backend."""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ._inputs import Inputs

TeacherDistribution: TypeAlias = Callable[[Inputs, Tensor, torch.dtype], Tensor | None]
"""From inputs, targets ((B,) int64 or (B, C) of the dtype) and a dtype, the teacher's probabilities (B, C) at the
temperature in that dtype; None if there is no teacher."""


def reference_loss(inputs: Inputs, teacher_distribution: TeacherDistribution, dtype: torch.dtype) -> Tensor:
    """Return w * [(1 - a) * CE + a * T^2 * KL(teacher_T || student_T)] (B,), computed in `dtype`.

    Shapes as in `kd_loss`. Gradients reach the student only.
    """
    student, temperature = inputs.student.to(dtype), inputs.temperature
    targets = inputs.labels.detach().to(dtype) if inputs.labels.dim() == 2 else inputs.labels.long()
    loss = F.cross_entropy(student, targets, reduction="none", label_smoothing=inputs.label_smoothing)
    teacher = teacher_distribution(inputs, targets, dtype)
    if teacher is not None:
        divergence = F.kl_div(F.log_softmax(student / temperature, dim=1), teacher, reduction="none").sum(1)
        loss = (1 - inputs.alpha) * loss + inputs.alpha * temperature**2 * divergence
    return loss if inputs.weight is None else loss * inputs.weight.detach().to(dtype)


def target_scale(targets: Tensor, class_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The entry of `class_scale` (C,) for each target (B,), or its mean under soft targets (B, C)."""
    scale = class_scale.detach().to(dtype)
    return targets @ scale if targets.dim() == 2 else scale[targets]
