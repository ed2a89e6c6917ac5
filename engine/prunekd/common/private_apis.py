"""What the engine uses of torch and Numba that they do not document, gathered here.

Each function says what it does, with which versions it was seen working, and what happens where it is gone. Modules are
imported in the functions, so that a use of one does not import the others. `prunekd_kernels/_private_options.py` is the
same for the kernels. Of FFCV more is used than it documents (`input/readers/ffcv_*.py`), and setup.py therefore allows
one version of it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

logger = logging.getLogger(__name__)


@contextmanager
def frozen_weights() -> Iterator[None]:
    """Let torch.compile treat weights as constants: `torch._inductor.config.patch(freezing=True)`.

    Inductor then lays weights out for the processor and fuses activations into convolutions. The documented way,
    `torch.compile(options={"freezing": True})`, has no effect while the network is traced (torch 2.15).

    Seen working: torch 2.7 and 2.15. Where it is gone, compilation goes on without it and a warning is logged.
    """
    try:
        from torch._inductor import config  # takes a second

        patch: Any = config.patch(freezing=True) if hasattr(config, "freezing") else None
    except (ImportError, AttributeError):
        patch = None
    if patch is None:
        logger.warning(f"torch {torch.__version__} has no inductor option `freezing`; the compiled teacher is slower")
        patch = nullcontext()
    with patch:
        yield


def external_function(symbol: str, result: Any, *arguments: Any) -> Any:
    """A C function that code compiled by Numba calls by its name: `numba.types.ExternalFunction`.

    The documented way, a ctypes function, is an address in the code, and Numba caches no code that holds one. The name
    becomes known through `llvmlite.binding.add_symbol`, which is documented.

    Seen working: Numba 0.62 and 0.68.

    Raises:
        RuntimeError: this Numba does not have it.
    """
    import numba

    make = getattr(numba.types, "ExternalFunction", None)
    if make is None:
        raise RuntimeError(
            f"Numba {numba.__version__} has no types.ExternalFunction, which the reader ffcv needs; "
            "install Numba 0.68 or take the reader native"
        )
    return make(symbol, result(*arguments))
