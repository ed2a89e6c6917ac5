"""`teacher_head_kd` in plain PyTorch: the definition, the oracle of the tests, and the "torch" backend."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kd_loss.reference import kd_loss_reference


def teacher_head_kd_reference(
    student: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    class_scale: Tensor | None = None,
) -> Tensor:
    """`kd_loss` with teacher logits features @ weight.T + bias, which are made in full here, in float32 or float64."""
    dtype = torch.float64 if torch.float64 in (student.dtype, features.dtype) else torch.float32
    offset = None if bias is None else bias.detach().to(dtype)
    teacher = F.linear(features.detach().to(dtype), weight.detach().to(dtype), offset)
    return kd_loss_reference(
        student, teacher, labels, alpha=alpha, temperature=temperature, label_smoothing=label_smoothing,
        weight=sample_weight, class_scale=class_scale,
    )  # fmt: skip
