"""Backends under test, random inputs with a printed seed, tolerances.

Triton cases run on a GPU if there is one. Without one they run in Triton's interpreter, which must be chosen before
Triton is first imported: `test_triton_offline.py` starts a process of its own for them, and here they are deselected.
"""

import secrets
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from prunekd_kernels._backends import interpreting

LOSS_TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 3e-6, torch.float16: 3e-6}
"""Relative to the largest loss of the batch: the loss is float32 whatever the logits are."""
GRAD_TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
"""Relative L2: float32 arithmetic (PyTorch's own sums of 5003 terms are 4e-6 off at worst), then one rounding (Triton's
interpreter truncates to bfloat16: 2^-7, not 2^-8)."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect Triton's cases where neither a GPU nor the interpreter can run them in this process."""
    here = torch.cuda.is_available() or interpreting()
    removed = [item for item in items if not here and _backend_of(item) == "triton"]
    if removed:
        config.hook.pytest_deselected(items=removed)
        items[:] = [item for item in items if item not in removed]


def _backend_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("backend") if callspec else None


@pytest.fixture(params=["torch", "numba", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend by name; ids contain it, so `-k triton` selects one."""
    return request.param


@pytest.fixture
def device(backend: str) -> torch.device:
    """Where the backend's tensors live in this process."""
    return torch.device("cuda" if backend == "triton" and not interpreting() else "cpu")


@pytest.fixture
def seed() -> int:
    """Fresh for every test and run, and shown with a failure: put it here to repeat one."""
    value = secrets.randbelow(2**31)
    print(f"seed = {value}")
    return value


@pytest.fixture
def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Result(NamedTuple):
    """What a loss gives for sum(upstream * loss).backward()."""

    loss: Tensor
    grad: Tensor


@pytest.fixture
def run() -> Callable[..., Result]:
    """Call a loss on a fresh leaf and take the gradient with an uneven upstream gradient."""

    def call(function: Callable[..., Tensor], student: Tensor, *args: object, **options: object) -> Result:
        leaf = student.detach().requires_grad_()
        if student.dim() == 2 and not student.is_contiguous():
            leaf = student.detach().as_strided(student.shape, student.stride()).requires_grad_()
        loss = function(leaf, *args, **options)
        upstream = torch.linspace(0.5, 1.5, max(loss.numel(), 1), device=loss.device)[: loss.numel()]
        (loss * upstream.to(loss.dtype)).sum().backward()
        assert leaf.grad is not None
        return Result(loss.detach().cpu(), leaf.grad.cpu())

    return call


@pytest.fixture
def assert_close() -> Callable[[Result, Result, torch.dtype], None]:
    """Compare with a float64 result within the dtype's tolerances."""

    def check(got: Result, wanted: Result, dtype: torch.dtype) -> None:
        assert got.loss.dtype in (torch.float32, torch.float64)
        scale = wanted.loss.abs().max().clamp(min=1.0)
        error = (got.loss.double() - wanted.loss).abs().max() / scale
        assert error <= LOSS_TOLERANCE[dtype], f"loss off by {error:.2e}"
        assert got.grad.dtype == dtype
        # a gradient near zero is a difference of probabilities times the temperature, whose rounding it cannot undercut
        scale = wanted.grad.norm().clamp(min=0.1 * wanted.grad.shape[0] ** 0.5)
        error = (got.grad.double() - wanted.grad).norm() / scale
        assert error <= GRAD_TOLERANCE[dtype], f"gradient off by {error:.2e}"

    return check


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set PyTorch's number of threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
