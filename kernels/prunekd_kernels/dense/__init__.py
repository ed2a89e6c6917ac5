"""Knowledge-distillation loss on dense logits: cross entropy and KL divergence in one pass."""

from typing import Literal, overload

import torch
from torch import Tensor

from .._backends import Backend
from .._checks import check_device, check_logits
from .._loss import DistillationLoss, result
from .._stats import DENSE_ROW_STATS, KDStats
from .reference import teacher_distribution

__all__ = ["kd_loss"]


@overload
def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, *, alpha: float | Tensor,
    temperature: float | Tensor, label_smoothing: float = ..., weight: Tensor | None = ...,
    class_scale: Tensor | None = ..., stats: Literal[False] = ..., backend: Backend = ...,
) -> Tensor: ...  # fmt: skip


@overload
def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, *, alpha: float | Tensor,
    temperature: float | Tensor, label_smoothing: float = ..., weight: Tensor | None = ...,
    class_scale: Tensor | None = ..., stats: Literal[True], backend: Backend = ...,
) -> tuple[Tensor, KDStats]: ...  # fmt: skip


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    class_scale: Tensor | None = None,
    stats: bool = False,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, KDStats]:
    """Per-sample distillation loss; take its mean (or weighted mean) outside.

        L_i = w_i * [(1 - a) * CE(z_s, y; smoothing e) + a * T^2 * KL(softmax(z_t / T) || softmax(z_s / T))]

    (Hinton et al. 2015, arXiv:1503.02531.) Gradients reach `student_logits` only; every other argument is a constant.

    Args:
        student_logits: (B, C) float32, bfloat16, float16 or float64; C >= 2; any row stride; may be empty.
        teacher_logits: (B, C), any of these dtypes; or None for plain cross entropy, with alpha=0.
        labels: (B,) int32 or int64 in [0, C), or soft labels (B, C) of a floating dtype (mixup).
        alpha: weight a of the KD term in [0, 1]; a number or a 0-d tensor.
        temperature: T > 0; a number or a 0-d tensor.
        label_smoothing: e in [0, 1), as in `torch.nn.functional.cross_entropy`.
        weight: (B,) per-sample weights w, or None for ones.
        class_scale: (C,) positive; switches on the logit reshaping of "Medium-Difficulty Samples Constitute Smoothed
            Decision Boundary for Knowledge Distillation on Pruned Datasets" (ICLR 2025): the teacher's row becomes
            z_t / std(z_t) * class_scale[y]; soft labels take the mean of class_scale under the label.
        stats: also return `KDStats` (correct, p_y, margin, el2n) from the same pass.
        backend: "auto" (Triton on CUDA, Numba on the CPU, else PyTorch), or one by name; "torch" is plain PyTorch
            operations and the one for float64. `resolve_backend` says what "auto" takes and why.

    Returns:
        Loss (B,) float32 (float64 if either of the logits is), or (loss, KDStats) if `stats`.

    Raises:
        ValueError: shapes, dtypes, devices or numbers out of range; on a CPU also labels outside [0, C). On a GPU
            looking would synchronise: there the loss and gradient of such a row are NaN (Triton), or PyTorch's
            device-side assertion fires ("torch").
        BackendUnavailableError: `backend` names one that cannot run here.
    """
    run, arguments = LOSS.prepare(
        student_logits, labels, weight, class_scale, alpha, temperature, label_smoothing, stats, backend, teacher_logits
    )
    return result(*run(*arguments), stats)


def _check_teacher(
    student: Tensor, alpha: float | Tensor, class_scale: Tensor | None, teacher: Tensor | None
) -> torch.dtype | None:
    if teacher is None:
        if isinstance(alpha, Tensor) or alpha != 0.0:
            raise ValueError(f"alpha={alpha} weighs a KD term, but teacher_logits is None; pass alpha=0.0 or a teacher")
        if class_scale is not None:
            raise ValueError("class_scale reshapes the teacher's logits, but teacher_logits is None")
        return None
    check_logits("teacher_logits", teacher)
    if teacher.shape != student.shape:
        raise ValueError(
            f"teacher_logits have shape {tuple(teacher.shape)} and student_logits {tuple(student.shape)}; "
            "the teacher must know the same classes"
        )
    check_device("teacher_logits", teacher, student)
    return teacher.dtype


LOSS = DistillationLoss(
    "kd_loss", __name__, "Tensor? teacher", _check_teacher, teacher_distribution, row_stats=DENSE_ROW_STATS
)
