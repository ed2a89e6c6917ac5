"""`kd_loss` in plain PyTorch: the definition, the oracle of the tests, the "torch" backend (any device, float64)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def kd_loss_reference(
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    class_scale: Tensor | None = None,
) -> Tensor:
    """Per-sample w * [(1 - a) * CE + a * T^2 * KL(teacher_T || student_T)], computed in float32, or float64 if given.

    Args and shapes as in `prunekd_kernels.kd_loss`. Gradients reach the student only.
    """
    dtype = torch.float64 if torch.float64 in (student.dtype, teacher.dtype if teacher is not None else None) else None
    dtype = dtype or torch.float32
    student = student.to(dtype)
    targets = labels.detach().to(dtype) if labels.dim() == 2 else labels.long()
    loss = F.cross_entropy(student, targets, reduction="none", label_smoothing=label_smoothing)
    if teacher is not None:
        shaped = teacher.detach().to(dtype)
        if class_scale is not None:
            shaped = reshape_teacher(shaped, targets, class_scale.detach().to(dtype))
        soft_targets = F.softmax(shaped / temperature, dim=1)
        divergence = F.kl_div(F.log_softmax(student / temperature, dim=1), soft_targets, reduction="none").sum(1)
        loss = (1 - alpha) * loss + alpha * temperature**2 * divergence
    return loss if weight is None else loss * weight.detach().to(dtype)


def reshape_teacher(teacher: Tensor, targets: Tensor, class_scale: Tensor) -> Tensor:
    """P2's reshaping: divide each row by its unbiased std over classes, multiply by the label's entry of `class_scale`.

    Soft targets (B, C) take the mean of `class_scale` under the target.
    """
    scale = targets @ class_scale if targets.dim() == 2 else class_scale[targets]
    return teacher / teacher.std(dim=1, keepdim=True) * scale.unsqueeze(1)
