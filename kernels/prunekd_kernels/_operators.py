"""A loss as registered operators, for `torch.compile`, and as a plain autograd function, for eager calls.

`torch.compile` needs the operators: it then sees one node with a shape and a gradient, and breaks no graph. In eager
mode the operators' way through PyTorch's dispatcher, in Python, takes a third of the time of a loss of 1024 x 1000 on
two cores, so there the same functions are called directly.
"""

# mypy: disallow-untyped-defs=False

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class LossOperator:
    """A forward and a backward function as operators `prunekd::<name>` and `prunekd::<name>_backward`.

    Args:
        forward: annotated function (student, ..., and alpha_tensor, temperature_tensor,
            alpha, temperature, label_smoothing, want_stats, backend) -> (loss (B,), row statistics
            (R, B), training statistics (4, B) or (4, 0)), all float32.
        backward: annotated function (grad_loss, the inputs at `saved`, row statistics, alpha_tensor,
            temperature_tensor, alpha, temperature, label_smoothing, backend) -> gradient like student, contiguous.
        row_stats: R.
        saved: positions of the inputs that backward needs, the student's first.
    """

    def __init__(
        self,
        forward: Callable[..., tuple[Tensor, Tensor, Tensor]],
        backward: Callable[..., Tensor],
        row_stats: int,
        saved: tuple[int, ...],
    ) -> None:
        self.forward, self.backward, self.saved = forward, backward, saved
        name = f"prunekd::{forward.__name__.strip('_')}"
        self.registered = torch.library.custom_op(name, forward, mutates_args=())
        self._registered_backward = torch.library.custom_op(f"{name}_backward", backward, mutates_args=())

        @self.registered.register_fake
        def _(student, *rest):
            rows, want_stats = student.shape[0], rest[-2]
            return (
                student.new_empty(rows, dtype=torch.float32),
                student.new_empty((row_stats, rows), dtype=torch.float32),
                student.new_empty((4, rows if want_stats else 0), dtype=torch.float32),
            )

        @self._registered_backward.register_fake
        def _(grad_loss, student, *rest):
            return student.new_empty(student.shape)

        self.registered.register_autograd(self._backward_registered, setup_context=self.save)

    def __call__(self, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        # a subclass (of a tracer, a fake tensor) must see an operator; a Parameter is as good as a plain tensor
        plain = type(inputs[0]) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()
        return _Direct.apply(self, *inputs) if plain else self.registered(*inputs)

    def save(self, ctx, inputs, output) -> None:
        """Keep what `backward` takes after grad_loss."""
        _, row_stats, stats = output
        *tensors, alpha, temperature, label_smoothing, _, backend = inputs
        ctx.save_for_backward(*(inputs[i] for i in self.saved), row_stats, *tensors[-2:])
        ctx.numbers = alpha, temperature, label_smoothing, backend
        ctx.num_inputs = len(inputs)
        ctx.mark_non_differentiable(row_stats, stats)

    def _backward_registered(self, ctx, grad_loss, *_):
        grad = self._registered_backward(grad_loss, *ctx.saved_tensors, *ctx.numbers)
        return grad, *[None] * (ctx.num_inputs - 1)


class _Direct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, operator, *inputs):
        output = operator.forward(*inputs)
        operator.save(ctx, inputs, output)
        ctx.operator = operator
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, *_):
        grad = ctx.operator.backward(grad_loss, *ctx.saved_tensors, *ctx.numbers)
        return None, grad, *[None] * (ctx.num_inputs - 1)
