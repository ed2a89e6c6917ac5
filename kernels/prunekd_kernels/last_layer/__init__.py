"""The teacher's last linear layer fused with the distillation loss: its logits are never a matrix in memory."""

from typing import Literal, overload

import torch
from torch import Tensor

from .._backends import Backend
from .._checks import check_classes, check_device
from .._loss import DistillationLoss, result
from .._stats import DENSE_ROW_STATS, KDStats
from .reference import teacher_distribution

__all__ = ["teacher_head_kd"]


@overload
def teacher_head_kd(
    student_logits: Tensor, teacher_features: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *,
    alpha: float | Tensor, temperature: float | Tensor, label_smoothing: float = ...,
    sample_weight: Tensor | None = ..., class_scale: Tensor | None = ..., stats: Literal[False] = ...,
    backend: Backend = ...,
) -> Tensor: ...  # fmt: skip


@overload
def teacher_head_kd(
    student_logits: Tensor, teacher_features: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *,
    alpha: float | Tensor, temperature: float | Tensor, label_smoothing: float = ...,
    sample_weight: Tensor | None = ..., class_scale: Tensor | None = ..., stats: Literal[True],
    backend: Backend = ...,
) -> tuple[Tensor, KDStats]: ...  # fmt: skip


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
    run, arguments = LOSS.prepare(
        student_logits, labels, sample_weight, class_scale, alpha, temperature, label_smoothing, stats, backend,
        teacher_features, weight, bias,
    )  # fmt: skip
    return result(*run(*arguments), stats)


def _check_head(
    student: Tensor,
    alpha: float | Tensor,
    class_scale: Tensor | None,
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
) -> torch.dtype:
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
    return features.dtype


LOSS = DistillationLoss(
    "teacher_head_kd", __name__, "Tensor features, Tensor head_weight, Tensor? head_bias",
    _check_head, teacher_distribution, row_stats=DENSE_ROW_STATS, weight_name="sample_weight",
)  # fmt: skip
