"""Knowledge-distillation loss against a cached teacher, of which the top K logits were kept."""

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
from .op import kd_loss_sparse_op
from .reference import kd_loss_sparse_reference

__all__ = ["kd_loss_sparse"]

Residual = Literal["renormalize", "spread"]


@overload
def kd_loss_sparse(
    student_logits: Tensor,
    topk_ids: Tensor,
    topk_logits: Tensor,
    logsumexp: Tensor | None,
    labels: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
    residual: Residual = ...,
    label_smoothing: float = ...,
    weight: Tensor | None = ...,
    class_scale: Tensor | None = ...,
    teacher_std: Tensor | None = ...,
    stats: Literal[False] = ...,
    backend: Backend = ...,
) -> Tensor: ...


@overload
def kd_loss_sparse(
    student_logits: Tensor,
    topk_ids: Tensor,
    topk_logits: Tensor,
    logsumexp: Tensor | None,
    labels: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
    residual: Residual = ...,
    label_smoothing: float = ...,
    weight: Tensor | None = ...,
    class_scale: Tensor | None = ...,
    teacher_std: Tensor | None = ...,
    stats: Literal[True],
    backend: Backend = ...,
) -> tuple[Tensor, KDStats]: ...


def kd_loss_sparse(
    student_logits: Tensor,
    topk_ids: Tensor,
    topk_logits: Tensor,
    logsumexp: Tensor | None,
    labels: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
    residual: Residual = "renormalize",
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    class_scale: Tensor | None = None,
    teacher_std: Tensor | None = None,
    stats: bool = False,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, KDStats]:
    """`kd_loss` with a teacher of whom only the top K logits per sample were stored.

    The names of the two residuals are FKD's (Shen & Xing 2022, arXiv:2112.01528: "marginal renorm" and "marginal
    smoothing").

    Args:
        student_logits: (B, C), as in `kd_loss`.
        topk_ids: (B, K) int16, int32 or int64: distinct classes in [0, C), 1 <= K <= C, in any order.
        topk_logits: (B, K) floating: the teacher's logits (not probabilities) of these classes.
        logsumexp: (B,) logsumexp(z_t / T) over all C classes, at the temperature given here; residual="spread" needs
            it, "renormalize" ignores it and takes None.
        labels, alpha, temperature, label_smoothing, weight, stats, backend: as in `kd_loss`.
        residual: what becomes of the probability outside the top K. "renormalize": the K classes share it in
            proportion, the others get none. "spread": the K keep their own, the others share the rest evenly.
        class_scale: (C,) as in `kd_loss`; needs `teacher_std`, and residual="renormalize" (the stored logsumexp belongs
            to logits that are not reshaped).
        teacher_std: (B,) unbiased std over all C classes of the teacher's logits, stored beside them.

    Returns:
        Loss (B,) float32 (float64 if either of the logits is), or (loss, KDStats) if `stats`.

    Raises:
        ValueError: shapes, dtypes, devices or numbers out of range, or arguments that contradict each other; on a CPU
            also labels or ids outside [0, C). On a GPU such a row's loss and gradient are NaN.
        BackendUnavailableError: `backend` names one that cannot run here.
    """
    check_logits("student_logits", student_logits)
    check_labels(labels, student_logits)
    check_rows("weight", weight, student_logits)
    check_scalars(alpha, temperature, label_smoothing)
    _check_topk(student_logits, topk_ids, topk_logits)
    _check_residual(student_logits, residual, logsumexp, class_scale, teacher_std)
    total = logsumexp if residual == "spread" else None
    dtype = torch.float64 if topk_logits.dtype == torch.float64 else student_logits.dtype
    name = resolved_name(backend, student_logits.device.type, dtype)
    if name == "torch":
        if not torch.compiler.is_compiling():
            check_index_values("labels", labels, student_logits.shape[1])
            check_index_values("topk_ids", topk_ids, student_logits.shape[1])
        loss = kd_loss_sparse_reference(
            student_logits, topk_ids, topk_logits, total, labels, alpha=alpha, temperature=temperature,
            label_smoothing=label_smoothing, weight=weight, class_scale=class_scale, teacher_std=teacher_std,
        )  # fmt: skip
        return (loss, reference_stats(student_logits.to(loss.dtype), labels)) if stats else loss
    scale = None
    if class_scale is not None and teacher_std is not None:
        if not torch.compiler.is_compiling():
            check_index_values("labels", labels, student_logits.shape[1])
        wanted = labels.to(class_scale.dtype) @ class_scale if labels.dim() == 2 else _lookup(class_scale, labels)
        scale = wanted / teacher_std
    alpha_tensor, alpha_number = split(alpha, student_logits.device)
    temperature_tensor, temperature_number = split(temperature, student_logits.device)
    loss, _, packed = kd_loss_sparse_op(
        student_logits, topk_ids, topk_logits, total, labels, weight, scale, alpha_tensor, temperature_tensor,
        alpha_number, temperature_number, label_smoothing, stats, name,
    )  # fmt: skip
    return (loss, unpack_stats(packed)) if stats else loss


def _lookup(class_scale: Tensor, labels: Tensor) -> Tensor:
    """class_scale[labels] without a device-side assertion for labels out of range: the kernel makes those rows NaN."""
    return class_scale[labels.long().clamp(0, class_scale.shape[0] - 1)]


def _check_topk(student: Tensor, ids: Tensor, logits: Tensor) -> None:
    rows, columns = student.shape
    if ids.dim() != 2 or ids.shape[0] != rows or not 1 <= ids.shape[1] <= columns:
        raise ValueError(f"topk_ids have shape {tuple(ids.shape)}; expected ({rows}, K) with 1 <= K <= {columns}")
    if ids.dtype not in (torch.int16, torch.int32, torch.int64):
        raise ValueError(f"topk_ids have dtype {ids.dtype}; expected int16, int32 or int64")
    if logits.shape != ids.shape or not logits.dtype.is_floating_point:
        raise ValueError(
            f"topk_logits have shape {tuple(logits.shape)} and dtype {logits.dtype}; "
            f"expected {tuple(ids.shape)} as topk_ids, of a floating dtype"
        )
    check_device("topk_ids", ids, student)
    check_device("topk_logits", logits, student)


def _check_residual(
    student: Tensor, residual: str, logsumexp: Tensor | None, class_scale: Tensor | None, teacher_std: Tensor | None
) -> None:
    if residual not in ("renormalize", "spread"):
        raise ValueError(f"residual={residual!r} is unknown; use 'renormalize' or 'spread'")
    if residual == "spread" and logsumexp is None:
        raise ValueError("residual='spread' needs logsumexp, from which the missing probability follows; "
                         "pass it or use residual='renormalize'")  # fmt: skip
    if (class_scale is None) != (teacher_std is None):
        raise ValueError("class_scale and teacher_std reshape the teacher's logits together; pass both or neither")
    if class_scale is not None and residual == "spread":
        raise ValueError("class_scale changes the teacher's logits, so that the stored logsumexp is no longer theirs; "
                         "use residual='renormalize'")  # fmt: skip
    check_rows("logsumexp", logsumexp, student)
    check_rows("teacher_std", teacher_std, student)
    check_classes("class_scale", class_scale, student)
