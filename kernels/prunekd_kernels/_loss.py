"""The one definition of a distillation loss: what it takes, its checks, its operators for PyTorch, its backends.

    L_i = w_i * [(1 - a) * CE(z_s, y; smoothing e) + a * T^2 * KL(p_t || softmax(z_s / T))]

The public losses differ in the teacher alone, that is in how its distribution p_t of a row is read: from a row of
logits (`dense`), from its top K logits (`topk`), or from features and the last layer's weight (`last_layer`).

`torch.compile` needs registered operators: it then sees one node with a shape and a gradient, and breaks no graph. In
eager mode an operator's way through PyTorch's dispatcher, in Python, takes a third of the time of a loss of 1024 x 1000
on two cores, so there the same kernels are called by a plain autograd function, or by none where no gradient is wanted.
"""

# mypy: disallow-untyped-defs=False

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._backends import resolved_name
from ._checks import check_classes, check_index_values, check_labels, check_logits, check_rows, check_scalars
from ._inputs import Inputs
from ._reference import TeacherDistribution, reference_loss
from ._stats import KDStats, reference_stats, unpack_stats

# `Inputs` for an operator, whose arguments are flat; a tensor, where given, takes the place of the number.
_SCHEMA = (
    "Tensor student, Tensor labels, Tensor? weight, Tensor? class_scale, Tensor? alpha_tensor, "
    "Tensor? temperature_tensor, float alpha, float temperature, float label_smoothing, bool want_stats, str backend"
)
_TENSORS, _NUMBERS, _TEACHER = slice(0, 6), slice(6, 11), slice(11, None)
_WANT_STATS = 9


class DistillationLoss:
    """A loss for one kind of teacher.

    Args:
        name: the operators become `prunekd::<name>` and `prunekd::<name>_backward`.
        package: the folder of its `numba_kernel` and `triton_kernel`. Each has `forward(inputs, want_stats)`, which
            returns loss (B,), row statistics for backward (`row_stats`, B) and training statistics (4, B) or (4, 0),
            all float32. Its `backward(grad_loss, inputs, row_stats)` returns the gradient by the student's logits
            (B, C) in their dtype, contiguous.
        teacher: its tensors, in the language of `torch.library`: "Tensor features, Tensor? bias".
        check: takes (student, alpha, class_scale, *teacher) and raises ValueError for a wrong teacher; returns the
            dtype of the teacher's logits, None without a teacher.
        reference: `TeacherDistribution` in plain PyTorch.
        row_stats: how many numbers forward leaves for backward, per row.
        class_ids: which of the teacher's tensors holds class ids, if one does.
        weight_name: what the public function calls the samples' weights.
    """

    def __init__(
        self,
        name: str,
        package: str,
        teacher: str,
        check: Callable[..., torch.dtype | None],
        reference: TeacherDistribution,
        row_stats: int,
        class_ids: str | None = None,
        weight_name: str = "weight",
    ) -> None:
        self.package, self.check, self.reference = package, check, reference
        self.class_ids, self.weight_name = class_ids, weight_name
        names = [argument.split()[-1] for argument in teacher.split(", ")]
        self._class_ids_place = None if class_ids is None else names.index(class_ids)
        self._kernels: dict[str, Any] = {}
        self._differentiable = partial(_EagerLoss.apply, self)
        arguments = f"{_SCHEMA}, {teacher}"
        self.registered = torch.library.custom_op(
            f"prunekd::{name}", self._forward, mutates_args=(), schema=f"({arguments}) -> (Tensor, Tensor, Tensor)"
        )
        self._registered_backward = torch.library.custom_op(
            f"prunekd::{name}_backward", self._backward, mutates_args=(),
            schema=f"(Tensor grad_loss, Tensor row_stats, {arguments}) -> Tensor",
        )  # fmt: skip

        @self.registered.register_fake
        def _(student, *rest):
            rows, want_stats = student.shape[0], rest[_WANT_STATS - 1]
            return (
                student.new_empty(rows, dtype=torch.float32),
                student.new_empty((row_stats, rows), dtype=torch.float32),
                student.new_empty((4, rows if want_stats else 0), dtype=torch.float32),
            )

        @self._registered_backward.register_fake
        def _(grad_loss, row_stats, student, *rest):
            return student.new_empty(student.shape)

        def differentiate(ctx, grad_loss, *_):
            grad = self._registered_backward(grad_loss, *saved(ctx))
            return grad, *[None] * (ctx.num_inputs - 1)

        self.registered.register_autograd(differentiate, setup_context=save)

    def prepare(
        self,
        student: Tensor,
        labels: Tensor,
        weight: Tensor | None,
        class_scale: Tensor | None,
        alpha: float | Tensor,
        temperature: float | Tensor,
        label_smoothing: float,
        stats: bool,
        backend: str,
        *teacher: Tensor | None,
    ) -> tuple[Callable[..., tuple[Tensor, Tensor | None, Tensor]], tuple[Any, ...]]:
        """Check the arguments; return a function that computes the loss, and what to call it with.

        It returns loss (B,), numbers of each row for backward, and training statistics (4, B) if wanted.

        Raises:
            ValueError, BackendUnavailableError: as the public functions say.
        """
        check_logits("student_logits", student)
        check_labels(labels, student)
        check_rows(self.weight_name, weight, student)
        check_scalars(alpha, temperature, label_smoothing)
        teacher_dtype = self.check(student, alpha, class_scale, *teacher)
        check_classes("class_scale", class_scale, student)
        dtype = torch.float64 if teacher_dtype == torch.float64 else student.dtype
        name = resolved_name(backend, student.device.type, dtype)
        if name == "torch":
            inputs = Inputs(student, labels, weight, class_scale, alpha, temperature, label_smoothing, teacher)
            return self._by_definition, (inputs, torch.promote_types(dtype, torch.float32), stats)
        alpha_tensor, alpha = _split(alpha, student.device)
        temperature_tensor, temperature = _split(temperature, student.device)
        # a subclass (of a tracer, a fake tensor) must see an operator; a Parameter is as good as a plain tensor
        if torch.compiler.is_compiling() or type(student) not in (Tensor, torch.nn.Parameter):
            run: Callable[..., Any] = self.registered
        elif student.requires_grad and torch.is_grad_enabled():
            run = self._differentiable
        else:
            run = self._forward
        return run, (
            student, labels, weight, class_scale, alpha_tensor, temperature_tensor,
            alpha, temperature, label_smoothing, stats, name, *teacher,
        )  # fmt: skip

    def kernel(self, arguments: tuple[Any, ...]) -> tuple[Any, Inputs]:
        """The module with the kernels for an operator's arguments, and its inputs.

        Raises:
            ValueError: class ids out of range, on a CPU.
        """
        student, labels, weight, class_scale, alpha_tensor, temperature_tensor = arguments[_TENSORS]
        alpha, temperature, smoothing, _, backend = arguments[_NUMBERS]
        module = self._kernels.get(backend)
        if module is None:
            module = self._kernels[backend] = import_module(f"{self.package}.{backend}_kernel")
        return module, Inputs(
            student, labels, weight, class_scale,
            alpha if alpha_tensor is None else _kernel_scalar(alpha_tensor),
            temperature if temperature_tensor is None else _kernel_scalar(temperature_tensor),
            smoothing, arguments[_TEACHER],
        )  # fmt: skip

    def check_values(self, inputs: Inputs) -> None:
        """Raise ValueError for class ids out of range on a CPU; elsewhere looking would synchronise."""
        check_index_values("labels", inputs.labels, inputs.student.shape[1])
        if self.class_ids is not None and self._class_ids_place is not None:
            ids = inputs.teacher[self._class_ids_place]
            assert ids is not None
            check_index_values(self.class_ids, ids, inputs.student.shape[1])

    def _forward(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        kernel, inputs = self.kernel(arguments)
        self.check_values(inputs)
        return kernel.forward(inputs, arguments[_WANT_STATS])

    def _backward(self, grad_loss: Tensor, row_stats: Tensor, *arguments: Any) -> Tensor:
        kernel, inputs = self.kernel(arguments)
        return kernel.backward(grad_loss, inputs, row_stats)

    def _by_definition(self, inputs: Inputs, dtype: torch.dtype, want_stats: bool) -> tuple[Tensor, None, Tensor]:
        if not torch.compiler.is_compiling():
            self.check_values(inputs)
        loss = reference_loss(inputs, self.reference, dtype)
        stats = reference_stats(inputs.student.to(dtype), inputs.labels) if want_stats else loss
        return loss, None, stats


class _EagerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss, *arguments):
        kernel, inputs = loss.kernel(arguments)
        loss.check_values(inputs)
        output = kernel.forward(inputs, arguments[_WANT_STATS])
        save(ctx, arguments, output)
        ctx.loss = loss
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, *_):
        row_stats, *arguments = saved(ctx)
        kernel, inputs = ctx.loss.kernel(tuple(arguments))
        return None, kernel.backward(grad_loss, inputs, row_stats), *[None] * (ctx.num_inputs - 1)


def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keep what backward needs of an operator's arguments and results (PyTorch prescribes the names)."""
    _, row_stats, stats = output
    ctx.save_for_backward(row_stats, *inputs[_TENSORS], *inputs[_TEACHER])
    ctx.numbers, ctx.num_inputs = inputs[_NUMBERS], len(inputs)
    ctx.mark_non_differentiable(row_stats, stats)
    ctx.set_materialize_grads(False)


def saved(ctx: Any) -> tuple[Any, ...]:
    """The row statistics and the operator's arguments that `save` kept."""
    row_stats, *tensors = ctx.saved_tensors
    return row_stats, *tensors[_TENSORS], *ctx.numbers, *tensors[6:]


def result(loss: Tensor, row_stats: Tensor | None, packed: Tensor, stats: bool) -> Tensor | tuple[Tensor, KDStats]:
    """What a public loss returns: the loss, or (loss, KDStats) if `stats`."""
    return (loss, unpack_stats(packed)) if stats else loss


def _split(value: float | Tensor, device: torch.device) -> tuple[Tensor | None, float]:
    """Return (tensor, number) for an operator, which has an argument for each; the number is unused with a tensor.

    Under `torch.compile` a number becomes a tensor by a multiplication: an operation which the compiler can keep
    symbolic, so a changed number costs no recompilation (PyTorch itself compiles once more at the first change).
    """
    if isinstance(value, Tensor):
        return value.detach(), 0.0
    if torch.compiler.is_compiling():
        return torch.ones((), device=device) * value, 0.0
    return None, float(value)


def _kernel_scalar(tensor: Tensor) -> float | Tensor:
    return float(tensor) if tensor.device.type == "cpu" else tensor
