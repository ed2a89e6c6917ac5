"""`alpha` and `temperature` may be numbers or 0-d tensors; here they become what an operator and a kernel can take."""

import torch
from torch import Tensor


def split(value: float | Tensor, device: torch.device) -> tuple[Tensor | None, float]:
    """Return (tensor, number) for an operator with one argument for each; the number is unused if there is a tensor.

    Under `torch.compile` a number becomes a tensor by a multiplication: an operation which the compiler can keep
    symbolic, so a changed number costs no recompilation (PyTorch itself compiles once more at the first change).
    """
    if isinstance(value, Tensor):
        return value.detach(), 0.0
    if torch.compiler.is_compiling():
        return torch.ones((), device=device) * value, 0.0
    return None, float(value)


def as_floats(
    alpha: float, alpha_tensor: Tensor | None, temperature: float, temperature_tensor: Tensor | None
) -> tuple[float, float]:
    """Both as numbers, for a kernel on the CPU."""
    return (
        alpha if alpha_tensor is None else float(alpha_tensor),
        temperature if temperature_tensor is None else float(temperature_tensor),
    )


def as_kernel_arguments(
    alpha: float, alpha_tensor: Tensor | None, temperature: float, temperature_tensor: Tensor | None
) -> tuple[float | Tensor, float | Tensor]:
    """Both as a number or a tensor on a device, for a kernel that reads a tensor itself: no synchronisation.

    A 0-d tensor on the CPU is read here, which waits for nothing.
    """
    return _kernel_argument(alpha, alpha_tensor), _kernel_argument(temperature, temperature_tensor)


def _kernel_argument(number: float, tensor: Tensor | None) -> float | Tensor:
    if tensor is None:
        return number
    if tensor.device.type == "cpu":
        return float(tensor)
    return tensor
