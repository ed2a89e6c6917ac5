"""Knowledge-distillation loss against a cached teacher, of which the top K logits were kept."""

from typing import Literal, overload

import torch
from torch import Tensor

from .._backends import Backend
from .._checks import check_device, check_rows
from .._loss import DistillationLoss, result
from .._stats import TOPK_ROW_STATS, KDStats
from .reference import teacher_distribution

__all__ = ["kd_loss_sparse"]

Residual = Literal["renormalize", "spread"]


@overload
def kd_loss_sparse(
    student_logits: Tensor, topk_ids: Tensor, topk_logits: Tensor, logsumexp: Tensor | None, labels: Tensor, *,
    alpha: float | Tensor, temperature: float | Tensor, residual: Residual = ..., label_smoothing: float = ...,
    weight: Tensor | None = ..., class_scale: Tensor | None = ..., teacher_std: Tensor | None = ...,
    stats: Literal[False] = ..., backend: Backend = ...,
) -> Tensor: ...  # fmt: skip


@overload
def kd_loss_sparse(
    student_logits: Tensor, topk_ids: Tensor, topk_logits: Tensor, logsumexp: Tensor | None, labels: Tensor, *,
    alpha: float | Tensor, temperature: float | Tensor, residual: Residual = ..., label_smoothing: float = ...,
    weight: Tensor | None = ..., class_scale: Tensor | None = ..., teacher_std: Tensor | None = ...,
    stats: Literal[True], backend: Backend = ...,
) -> tuple[Tensor, KDStats]: ...  # fmt: skip


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
    _check_residual(student_logits, residual, logsumexp, class_scale, teacher_std)
    run, arguments = LOSS.prepare(
        student_logits, labels, weight, class_scale, alpha, temperature, label_smoothing, stats, backend,
        topk_ids, topk_logits, logsumexp if residual == "spread" else None, teacher_std,
    )  # fmt: skip
    return result(*run(*arguments), stats)


def _check_topk(
    student: Tensor,
    alpha: float | Tensor,
    class_scale: Tensor | None,
    ids: Tensor,
    logits: Tensor,
    logsumexp: Tensor | None,
    teacher_std: Tensor | None,
) -> torch.dtype:
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
    return logits.dtype


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


LOSS = DistillationLoss(
    "kd_loss_sparse", __name__, "Tensor topk_ids, Tensor topk_logits, Tensor? logsumexp, Tensor? teacher_std",
    _check_topk, teacher_distribution, row_stats=TOPK_ROW_STATS, class_ids="topk_ids",
)  # fmt: skip
