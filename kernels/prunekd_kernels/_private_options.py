"""Every private option of Numba, llvmlite and PyTorch that this package relies on, in one place.

- `_nrt=False` of `numba.njit` compiles without reference counts on arrays: `jit_without_reference_counts`.
- Methods of numba.core let an intrinsic call a jitted function: `compiled_signature`, `call_compiled`.
- `set.add` gives an LLVM function an attribute that llvmlite does not know: `prefer_wide_vectors`.
- `_dynamo_marked_constant` makes a function's result a constant of a compiled graph: `constant_when_compiled`.

All were seen working with Numba 0.62.1 (llvmlite 0.45.1), Numba 0.68.1 (llvmlite 0.50.0) and PyTorch 2.15.0. Where a
release drops one, the function here raises `PrivateOptionError`, which names the release and the remedy.

Numba and llvmlite are imported where they are needed: importing `prunekd_kernels` must import neither.
"""

from collections.abc import Callable
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class PrivateOptionError(Exception):
    """An installed release lacks a private option that the compiled kernels need; the message names the remedy."""


def jit_without_reference_counts(function: Callable[..., Any], **options: Any) -> Any:
    """Return `numba.njit(function, **options)` compiled without reference counts on arrays (`_nrt=False`).

    The owner of every array outlives the call. With counts, each row ends in atomic operations of all threads on one
    cache line. Measured on 2 cores: 1.45 times the speed of one thread with counts, 1.97 times without.

    Raises:
        PrivateOptionError: this Numba has no such option. Numba itself would say so at the first call only.
    """
    import numba
    from numba.core.options import DefaultOptions

    if not hasattr(DefaultOptions, "_nrt"):
        raise _missing("numba", "the option _nrt of numba.njit")
    private: dict[str, Any] = {"_nrt": False}
    return numba.njit(**private, **options)(function)


def prefer_wide_vectors(function: Any) -> None:
    """Let LLVM use 512-bit vectors in an `ir.Function` where the processor has them; alone it stops at 256 bits.

    Measured: a fifth off the forward pass of `kd_loss`, 1024 x 1000 in float32. llvmlite's attributes are a set that
    refuses names it does not know, so `set.add` goes round its check.

    Raises:
        PrivateOptionError: llvmlite keeps its attributes in something else.
    """
    if not isinstance(function.attributes, set):
        raise _missing("llvmlite", "a set in ir.Function.attributes")
    set.add(function.attributes, '"prefer-vector-width"="512"')


def compiled_signature(typing_context: Any, kernel: Any, args: tuple[Any, ...]) -> Any:
    """Return the signature of the jitted function of type `kernel` for arguments of types `args`, compiling it.

    Raises:
        PrivateOptionError: Numba's types of jitted functions have no `get_call_type`.
    """
    if not hasattr(kernel, "get_call_type"):
        raise _missing("numba", "get_call_type of a jitted function's type")
    return kernel.get_call_type(typing_context, args, {})


def call_compiled(context: Any, builder: Any, kernel: Any, signature: Any, args: list[Any]) -> None:
    """Emit a call of a jitted function from an LLVM function of one's own; its result and errors are dropped.

    Raises:
        PrivateOptionError: Numba's target context or dispatcher lacks one of the methods for this.
    """
    needed = {"add_linking_libs": context, "call_internal_no_propagate": context}
    for name, owner in (needed | {"get_compile_result": kernel.dispatcher}).items():
        if not hasattr(owner, name):
            raise _missing("numba", f"{type(owner).__name__}.{name}")
    compiled = kernel.dispatcher.get_compile_result(signature)
    context.add_linking_libs([compiled.library])
    context.call_internal_no_propagate(builder, compiled.fndesc, signature, args)


def constant_when_compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Make `torch.compile` call a function while it traces and keep the result as a constant of the graph.

    `torch.compiler.assume_constant_result` does the same, but imports the whole compiler, and Triton with it.

    Raises:
        PrivateOptionError: (the function returned, and so the compilation) PyTorch ignores the mark and traces into it.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_dynamo_compiling():
            raise _missing(
                "torch", "the mark _dynamo_marked_constant of functions", "torch 2.15 or leave the loss eager"
            )
        return function(*args, **kwargs)

    call._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return call


def _missing(package: str, what: str, remedy: str = "numba 0.62 to 0.68 or pass backend='torch'") -> PrivateOptionError:
    try:
        # of torch as a constant, for torch.compile traces this function and 2.7 cannot trace a look at packages
        installed = torch.__version__ if package == "torch" else version(package)
    except PackageNotFoundError:
        installed = "(unknown version)"
    return PrivateOptionError(
        f"{package} {installed} no longer has {what}, which the compiled kernels need; install {remedy}"
    )
