"""`teacher_head_kd` as a pair of registered operators."""

from torch import Tensor

from .._checks import check_index_values
from .._operators import LossOperator
from .._scalars import kernel_and_scalars
from ..kd_loss.op import ROW_STATS


def _teacher_head_kd(
    student: Tensor,
    features: Tensor,
    head_weight: Tensor,
    head_bias: Tensor | None,
    labels: Tensor,
    weight: Tensor | None,
    class_scale: Tensor | None,
    alpha_tensor: Tensor | None,
    temperature_tensor: Tensor | None,
    alpha: float,
    temperature: float,
    label_smoothing: float,
    want_stats: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (B,), row statistics for backward (ROW_STATS, B), training statistics (4, B) or (4, 0); float32.

    `alpha_tensor` and `temperature_tensor`, where given, replace the numbers; `backend` is "numba" or "triton".
    """
    check_index_values("labels", labels, student.shape[1])
    kernel, a, t = kernel_and_scalars(__package__, backend, alpha, alpha_tensor, temperature, temperature_tensor)
    return kernel.forward(
        student, features, head_weight, head_bias, labels, weight, class_scale, a, t, label_smoothing, want_stats
    )


def _teacher_head_kd_backward(
    grad_loss: Tensor,
    student: Tensor,
    features: Tensor,
    head_weight: Tensor,
    head_bias: Tensor | None,
    labels: Tensor,
    weight: Tensor | None,
    row_stats: Tensor,
    alpha_tensor: Tensor | None,
    temperature_tensor: Tensor | None,
    alpha: float,
    temperature: float,
    label_smoothing: float,
    backend: str,
) -> Tensor:
    """Return the gradient (B, C) by the student's logits, in their dtype, contiguous."""
    kernel, a, t = kernel_and_scalars(__package__, backend, alpha, alpha_tensor, temperature, temperature_tensor)
    return kernel.backward(
        grad_loss, student, features, head_weight, head_bias, labels, weight, row_stats, a, t, label_smoothing
    )


teacher_head_kd_op = LossOperator(
    _teacher_head_kd, _teacher_head_kd_backward, row_stats=ROW_STATS, saved=(0, 1, 2, 3, 4, 5)
)
