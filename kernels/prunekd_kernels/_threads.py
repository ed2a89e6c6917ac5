"""Row-parallel execution of GIL-free compiled functions.

Why not Numba's own `prange`: its default threading layer ends the process when two Python threads enter it at once (a
reader thread normalising a batch while the trainer computes a loss), and the OpenMP one does after a fork (a DataLoader
worker). A pool of our own has neither fault, obeys `torch.set_num_threads`, and compiles several times faster.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch

_WORTH_A_THREAD = 1 << 15  # elements; handing a chunk to a thread costs about as long as working on this many


@lru_cache(maxsize=1)
def _pool(process_id: int, size: int) -> ThreadPoolExecutor:
    """One pool per process (threads do not survive a fork, so a child makes its own) and size."""
    return ThreadPoolExecutor(size, thread_name_prefix="prunekd-kernels")


def run_rows(kernel: Callable[..., Any], num_rows: int, num_columns: int, *args: Any) -> None:
    """Call `kernel(first, last, *args)` over [0, num_rows) in contiguous chunks on up to `torch.get_num_threads()` threads.

    The calling thread works on one chunk itself; the call returns when all are done and re-raises what one raised.
    """
    wanted = max(1, num_rows * num_columns // _WORTH_A_THREAD)
    chunks = min(torch.get_num_threads(), num_rows, wanted)
    if chunks <= 1:
        kernel(0, num_rows, *args)
        return
    bounds = [num_rows * i // chunks for i in range(chunks + 1)]
    pool = _pool(os.getpid(), max(1, torch.get_num_threads() - 1))
    futures = [pool.submit(kernel, bounds[i], bounds[i + 1], *args) for i in range(1, chunks)]
    kernel(bounds[0], bounds[1], *args)
    for future in futures:
        future.result()
