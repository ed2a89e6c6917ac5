"""Which implementation runs: `torch` (reference), `numba` (CPU) or `triton` (CUDA, or a CPU through its interpreter).

Nothing here imports Triton or Numba: looking for a package is cheap, importing it is not, and many users need neither.
"""

import os
from functools import cache
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch

from ._private_options import constant_when_compiled

Backend = Literal["auto", "torch", "numba", "triton"]
BACKENDS = ("auto", "torch", "numba", "triton")
_KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)


class Choice(NamedTuple):
    """The backend that a call takes and why."""

    name: str
    reason: str


class BackendUnavailableError(RuntimeError):
    """A backend was asked for by name and cannot run here; the message names the remedy."""


def interpreting() -> bool:
    """True if `TRITON_INTERPRET=1`, which makes Triton kernels run on CPU tensors (slowly, for tests)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def available_backends() -> dict[str, str]:
    """Return each backend's name with "available" or the reason why it cannot run on this machine.

    A value that starts with "available" may carry a note, e.g. "available (interpreter: CPU tensors, slow)".
    """
    return {"torch": "available", "numba": _numba_status(), "triton": _triton_status()}


def resolve_backend(name: str, device: torch.device | str, dtype: torch.dtype) -> Choice:
    """Say which backend a call with tensors of `dtype` on `device` takes.

    Args:
        name: "auto" or a backend's name.
        device: where the student's logits (or the images) are.
        dtype: their dtype.

    Returns:
        The backend's name and the reason for it.

    Raises:
        ValueError: `name` is unknown.
        BackendUnavailableError: `name` is a backend which cannot run with this device and dtype.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r} is unknown; use one of {', '.join(map(repr, BACKENDS))}")
    device_type = torch.device(device).type
    if name == "torch":
        return Choice("torch", "asked for by name")
    if name != "auto":
        obstacle = _obstacle(name, device_type, dtype)
        if obstacle:
            raise BackendUnavailableError(f"backend={name!r} cannot run here: {obstacle}; or use backend='auto'")
        return Choice(name, "asked for by name")
    preferred = {"cuda": "triton", "cpu": "numba"}.get(device_type)
    if preferred is None:
        return Choice("torch", f"no kernel is written for {device_type!r} devices")
    obstacle = _obstacle(preferred, device_type, dtype)
    if obstacle:
        return Choice("torch", f"{preferred} cannot run: {obstacle}")
    return Choice(preferred, f"the fused kernel for {device_type} tensors")


@constant_when_compiled
@cache
def resolved_name(name: str, device_type: str, dtype: torch.dtype) -> str:
    """`resolve_backend(...).name`, a constant to `torch.compile`: the look for packages must not be traced."""
    return resolve_backend(name, device_type, dtype).name


def _obstacle(name: str, device_type: str, dtype: torch.dtype) -> str | None:
    """Why `name` cannot run on this device and dtype, with the remedy, or None if it can."""
    if dtype not in _KERNEL_DTYPES:
        return f"it has no kernel for {dtype} (use backend='torch')"
    status = _numba_status() if name == "numba" else _triton_status()
    if not status.startswith("available"):
        return status
    if name == "numba" and device_type != "cpu":
        return f"it runs on CPU tensors and these are on {device_type!r} (move them or use backend='triton')"
    if name == "triton" and device_type == "cpu" and not interpreting():
        return "it runs on CUDA tensors (set TRITON_INTERPRET=1 before the first import of triton to try it on a CPU)"
    if name == "triton" and device_type not in ("cpu", "cuda"):
        return f"it runs on CUDA tensors and these are on {device_type!r} (use backend='torch')"
    return None


@cache  # looking through sys.path costs more than a small loss
def _installed(package: str) -> bool:
    return find_spec(package) is not None


def _numba_status() -> str:
    return "available" if _installed("numba") else "numba is not installed (pip install numba)"


def _triton_status() -> str:
    if not _installed("triton"):
        return "triton is not installed (pip install triton)"
    if interpreting():
        return "available (interpreter: CPU tensors, slow)"
    if not torch.cuda.is_available():
        return "no CUDA device is visible (TRITON_INTERPRET=1 runs it on a CPU, slowly)"
    return "available"
