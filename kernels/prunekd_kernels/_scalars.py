"""`alpha` and `temperature` may be numbers or 0-d tensors; here they become what an operator and a kernel can take."""

from importlib import import_module
from types import ModuleType

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


def kernel_and_scalars(
    package: str | None,
    backend: str,
    alpha: float,
    alpha_tensor: Tensor | None,
    temperature: float,
    temperature_tensor: Tensor | None,
) -> tuple[ModuleType, float | Tensor, float | Tensor]:
    """The module with a package's kernels for "numba" or "triton", and alpha and temperature as it takes them.

    A kernel on a GPU reads a tensor on its device itself, which needs no synchronisation; anything else is a number.
    """
    module = import_module(f"{package}.{backend}_kernel")
    return module, _kernel_argument(alpha, alpha_tensor), _kernel_argument(temperature, temperature_tensor)


def _kernel_argument(number: float, tensor: Tensor | None) -> float | Tensor:
    if tensor is None:
        return number
    if tensor.device.type == "cpu":
        return float(tensor)
    return tensor
