"""`kd_loss` in plain PyTorch: the teacher's distribution from a row of logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._inputs import Inputs
from .._reference import target_scale


def teacher_distribution(inputs: Inputs, targets: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return softmax(z_t / T) (B, C) of the reshaped logits, None without a teacher."""
    (teacher,) = inputs.teacher
    return None if teacher is None else softened(teacher.detach().to(dtype), inputs, targets)


def softened(teacher: Tensor, inputs: Inputs, targets: Tensor) -> Tensor:
    """Return softmax(z_t / T) of logits (B, C), reshaped as P2 does if there is a `class_scale`.

    Reshaping divides each row by its unbiased std over classes and multiplies by the label's entry of `class_scale`.
    """
    if inputs.class_scale is not None:
        scale = target_scale(targets, inputs.class_scale, teacher.dtype)
        teacher = teacher / teacher.std(dim=1, keepdim=True) * scale.unsqueeze(1)
    return F.softmax(teacher / inputs.temperature, dim=1)
