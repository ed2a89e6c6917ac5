"""`teacher_head_kd` as a pair of registered operators."""

# mypy: disallow-untyped-defs=False

import torch
from torch import Tensor

from .._checks import check_index_values
from .._scalars import as_floats, as_kernel_arguments
from ..kd_loss.op import ROW_STATS


@torch.library.custom_op("prunekd::teacher_head_kd", mutates_args=())
def teacher_head_kd_op(
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
    if backend == "numba":
        from . import numba_kernel

        a, t = as_floats(alpha, alpha_tensor, temperature, temperature_tensor)
        return numba_kernel.forward(
            student, features, head_weight, head_bias, labels, weight, class_scale, a, t, label_smoothing, want_stats
        )
    from . import triton_kernel

    a_arg, t_arg = as_kernel_arguments(alpha, alpha_tensor, temperature, temperature_tensor)
    return triton_kernel.forward(
        student,
        features,
        head_weight,
        head_bias,
        labels,
        weight,
        class_scale,
        a_arg,
        t_arg,
        label_smoothing,
        want_stats,
    )


@teacher_head_kd_op.register_fake
def _fake_forward(
    student, features, head_weight, head_bias, labels, weight, class_scale, alpha_tensor, temperature_tensor, alpha,
    temperature, label_smoothing, want_stats, backend,
):  # fmt: skip
    rows = student.shape[0]
    return (
        student.new_empty(rows, dtype=torch.float32),
        student.new_empty((ROW_STATS, rows), dtype=torch.float32),
        student.new_empty((4, rows if want_stats else 0), dtype=torch.float32),
    )


@torch.library.custom_op("prunekd::teacher_head_kd_backward", mutates_args=())
def teacher_head_kd_backward_op(
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
    if backend == "numba":
        from . import numba_kernel

        a, t = as_floats(alpha, alpha_tensor, temperature, temperature_tensor)
        return numba_kernel.backward(
            grad_loss, student, features, head_weight, head_bias, labels, weight, row_stats, a, t, label_smoothing
        )
    from . import triton_kernel

    a_arg, t_arg = as_kernel_arguments(alpha, alpha_tensor, temperature, temperature_tensor)
    return triton_kernel.backward(
        grad_loss, student, features, head_weight, head_bias, labels, weight, row_stats, a_arg, t_arg, label_smoothing
    )


@teacher_head_kd_backward_op.register_fake
def _fake_backward(grad_loss, student, *_):
    return student.new_empty(student.shape)


def _setup_context(ctx, inputs, output):
    student, features, head_weight, head_bias, labels, weight, _, alpha_tensor, temperature_tensor, *numbers = inputs
    _, row_stats, stats = output
    ctx.save_for_backward(
        student, features, head_weight, head_bias, labels, weight, row_stats, alpha_tensor, temperature_tensor
    )
    ctx.alpha, ctx.temperature, ctx.label_smoothing, _, ctx.backend = numbers
    ctx.mark_non_differentiable(row_stats, stats)


def _backward(ctx, grad_loss, *_):
    grad = teacher_head_kd_backward_op(
        grad_loss, *ctx.saved_tensors, ctx.alpha, ctx.temperature, ctx.label_smoothing, ctx.backend
    )
    return grad, *[None] * 13


teacher_head_kd_op.register_autograd(_backward, setup_context=_setup_context)
