"""The teacher's last linear layer fused with the distillation loss: its logits are never a matrix in memory."""

from typing import Literal, overload

import torch
from torch import Tensor

from .._backends import Backend, resolved_name
from .._checks import (
    check_classes,
    check_device,
    check_index_values,
    check_labels,
    check_logits,
    check_rows,
    check_scalars,
)
from .._scalars import split
from .._stats import KDStats, reference_stats, unpack_stats
from .op import teacher_head_kd_op
from .reference import teacher_head_kd_reference

__all__ = ["teacher_head_kd"]


@overload
def teacher_head_kd(
    student_logits: Tensor,
    teacher_features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
    label_smoothing: float = ...,
    sample_weight: Tensor | None = ...,
    class_scale: Tensor | None = ...,
    stats: Literal[False] = ...,
    backend: Backend = ...,
) -> Tensor: ...


@overload
def teacher_head_kd(
    student_logits: Tensor,
    teacher_features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
    label_smoothing: float = ...,
    sample_weight: Tensor | None = ...,
    class_scale: Tensor | None = ...,
    stats: Literal[True],
    backend: Backend = ...,
) -> tuple[Tensor, KDStats]: ...


def teacher_head_kd(
    student_logits: Tensor,
    teacher_features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    class_scale: Tensor | None = None,
    stats: bool = False,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, KDStats]:
    """`kd_loss(student_logits, teacher_features @ weight.T + bias, labels, ...)` without the teacher's (B, C) logits.

    It trades memory traffic for arithmetic (backward multiplies once more, `class_scale` once more again), so it can
    pay at large C alone; `benchmarks/kernels.py` measures where. On two CPU cores it saves memory and never time: 1.4
    times the time of both steps at C = 10, 3.3 times at 50,000. The idea of never storing logits is Liger-Kernel's and
    Apple's cut cross entropy's (arXiv:2411.09009); here the head is the frozen teacher's and gets no gradient.

    Args:
        student_logits: (B, C), as in `kd_loss`.
        teacher_features: (B, D) penultimate features, floating.
        weight: (C, D) weight of the teacher's last layer, in the features' dtype; not the weight of samples.
        bias: (C,) its bias in the features' dtype, or None.
        labels, alpha, temperature, label_smoothing, class_scale, stats, backend: as in `kd_loss`.
        sample_weight: (B,) `kd_loss`'s weight.

    Returns:
        Loss (B,) float32 (float64 if student or features are), or (loss, KDStats) if `stats`.

    Raises:
        ValueError: shapes, dtypes, devices or numbers out of range; on a CPU also labels outside [0, C).
        BackendUnavailableError: `backend` names one that cannot run here.
    """
    check_logits("student_logits", student_logits)
    check_labels(labels, student_logits)
    check_rows("sample_weight", sample_weight, student_logits)
    check_classes("class_scale", class_scale, student_logits)
    check_scalars(alpha, temperature, label_smoothing)
    _check_head(student_logits, teacher_features, weight, bias)
    dtype = torch.float64 if teacher_features.dtype == torch.float64 else student_logits.dtype
    name = resolved_name(backend, student_logits.device.type, dtype)
    if name == "torch":
        if not torch.compiler.is_compiling():
            check_index_values("labels", labels, student_logits.shape[1])
        loss = teacher_head_kd_reference(
            student_logits, teacher_features, weight, bias, labels, alpha=alpha, temperature=temperature,
            label_smoothing=label_smoothing, sample_weight=sample_weight, class_scale=class_scale,
        )  # fmt: skip
        return (loss, reference_stats(student_logits.to(loss.dtype), labels)) if stats else loss
    alpha_tensor, alpha_number = split(alpha, student_logits.device)
    temperature_tensor, temperature_number = split(temperature, student_logits.device)
    loss, _, packed = teacher_head_kd_op(
        student_logits, teacher_features, weight, bias, labels, sample_weight, class_scale, alpha_tensor,
        temperature_tensor, alpha_number, temperature_number, label_smoothing, stats, name,
    )  # fmt: skip
    return (loss, unpack_stats(packed)) if stats else loss


def _check_head(student: Tensor, features: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    rows, classes = student.shape
    if features.dim() != 2 or features.shape[0] != rows or not features.dtype.is_floating_point:
        raise ValueError(
            f"teacher_features have shape {tuple(features.shape)} and dtype {features.dtype}; "
            f"expected ({rows}, D) of a floating dtype"
        )
    if weight.shape != (classes, features.shape[1]):
        raise ValueError(f"weight has shape {tuple(weight.shape)}; expected (C, D) = ({classes}, {features.shape[1]})")
    if weight.dtype != features.dtype or (bias is not None and bias.dtype != features.dtype):
        raise ValueError(
            f"teacher_features have dtype {features.dtype}, weight {weight.dtype}"
            f"{'' if bias is None else f', bias {bias.dtype}'}; cast them to one"
        )
    check_device("teacher_features", features, student)
    check_device("weight", weight, student)
    check_classes("bias", bias, student)
