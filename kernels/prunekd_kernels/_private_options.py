"""Every private option of Numba, llvmlite and PyTorch that this package relies on, in one place.

| option | of | what it does here | if a release drops it |
|---|---|---|---|
| `_nrt=False` | Numba | compiles without reference counts on arrays | `jit_without_reference_counts` raises |
| numba.core's calls | Numba | one compiled function calls another inside an intrinsic | `call_compiled` raises |
| `set.add(attributes)` | llvmlite | gives a function an LLVM attribute unknown to llvmlite | `prefer_wide_vectors` raises |
| `_dynamo_marked_constant` | PyTorch | a call's result is a constant of the compiled graph | graph break, error with `fullgraph=True` |

All were seen working with Numba 0.62.1 (llvmlite 0.45.1) and 0.68.1 (llvmlite 0.50.0) and with PyTorch 2.15.0.
Nothing here imports Numba or llvmlite at the top: importing `prunekd_kernels` must import neither.
"""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


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
    return numba.njit(_nrt=False, **options)(function)


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


def constant_when_compiled(function: F) -> F:
    """Make `torch.compile` call a function while it traces and keep the result as a constant of the graph.

    `torch.compiler.assume_constant_result` does the same, but imports the whole compiler, and Triton with it. A PyTorch
    that ignores the mark traces into the function: a graph break, and an error with `fullgraph=True`.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def _missing(package: str, what: str) -> PrivateOptionError:
    try:
        installed = version(package)
    except PackageNotFoundError:
        installed = "(unknown version)"
    return PrivateOptionError(
        f"{package} {installed} has no longer {what}, which the CPU kernels need; "
        "install numba 0.62 to 0.68 or pass backend='torch'"
    )
