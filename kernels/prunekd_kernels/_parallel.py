"""Row-parallel execution of compiled functions on PyTorch's own threads.

Why not Numba's `prange`: its default threading layer ends the process when two Python threads enter it at once (a
reader thread normalising a batch while the trainer computes a loss), and its OpenMP layer does after a fork (a
DataLoader worker). Why not a thread pool: OpenMP's workers spin for milliseconds after each PyTorch operation, waiting
for the next, and a pool's threads then share the cores with them (measured: half the speed on 2 cores).

So a parallel region is opened in the OpenMP runtime that PyTorch has loaded (`GOMP_parallel`, which GCC's, LLVM's and
Intel's runtimes export on Linux), and obeys `torch.set_num_threads`. Where there is none, a thread pool does the work.
"""

# mypy: disallow-untyped-defs=False, disable-error-code="call-arg,import-untyped"

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WORTH_A_THREAD = 1 << 14  # elements; waking a thread costs about as long as working on this many
_ADDRESS = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


def run_rows(kernel: Any, team: Any, num_rows: int, num_columns: int, *args: Any) -> None:
    """Call `kernel(first, last, *args)` over [0, num_rows) in chunks, on up to `torch.get_num_threads()` threads.

    Args:
        kernel: a function compiled by `_numba_math.jit`; what it returns or raises is lost in all threads but one.
        team: a compiled function of (args, num_rows, size, *runtime) that passes all on to `open_region(kernel, ...)`.
            It stands beside the kernel in its module and names it, since Numba's cache on disk can keep a function that
            names another, and cannot keep one that takes it as an argument.
        num_rows: how many rows there are.
        num_columns: elements of work in a row; small tasks stay on the calling thread.
        args: arrays, numbers and booleans, handed to every call.
    """
    threads = min(torch.get_num_threads(), num_rows, num_rows * num_columns // _WORTH_A_THREAD)
    if threads <= 1:
        kernel(0, num_rows, *args)
        return
    runtime = _openmp_runtime()
    if runtime is not None:
        # always the whole team: a changing size makes the runtime end threads and start new ones
        team(args, num_rows, torch.get_num_threads(), *runtime)
        return
    bounds = [num_rows * i // threads for i in range(threads + 1)]
    pool = _pool(os.getpid(), torch.get_num_threads())
    futures = [pool.submit(kernel, bounds[i], bounds[i + 1], *args) for i in range(1, threads)]
    kernel(bounds[0], bounds[1], *args)
    for future in futures:
        future.result()


@lru_cache(maxsize=1)
def _openmp_runtime() -> tuple[int, int, int] | None:
    """Addresses of GOMP_parallel, omp_get_thread_num and omp_get_num_threads in the runtime PyTorch loaded, or None."""
    try:
        process = ctypes.CDLL(None)
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        parallel, thread_num, num_threads = (ctypes.cast(getattr(process, n), ctypes.c_void_p).value for n in names)
    except (OSError, AttributeError, TypeError):
        return None
    return (parallel, thread_num, num_threads) if parallel and thread_num and num_threads else None


@lru_cache(maxsize=1)
def _pool(process_id: int, size: int) -> ThreadPoolExecutor:
    """One pool per size and process: threads do not survive a fork, so a child makes its own."""
    return ThreadPoolExecutor(size, thread_name_prefix="prunekd-kernels")


@intrinsic
def open_region(typingctx, kernel, args, num_rows, team, gomp_parallel, omp_get_thread_num, omp_get_num_threads):
    """GOMP_parallel(body, &packed, team, 0), where body(packed) calls `kernel` with its thread's share of the rows.

    The addresses are arguments rather than constants so that the compiled code can be cached on disk.
    """
    integer = types.int64
    signature = types.void(kernel, args, integer, integer, integer, integer, integer)
    kernel_signature = kernel.get_call_type(typingctx, (integer, integer, *args.types), {})

    def generate(context, builder, signature, values):
        _, packed_args, rows, team_size, region, thread_num, num_threads = values
        fields = [*cgutils.unpack_tuple(builder, packed_args), rows, thread_num, num_threads]
        packed = cgutils.alloca_once(builder, ir.LiteralStructType([f.type for f in fields]))
        for position, field in enumerate(fields):
            builder.store(field, cgutils.gep_inbounds(builder, packed, 0, position))
        body = _emit_body(context, builder, kernel, kernel_signature, packed.type)
        region_type = ir.FunctionType(ir.VoidType(), [body.type, _BYTES, ir.IntType(32), ir.IntType(32)])
        builder.call(
            builder.inttoptr(region, region_type.as_pointer()),
            [body, builder.bitcast(packed, _BYTES), builder.trunc(team_size, ir.IntType(32)), ir.IntType(32)(0)],
        )
        return context.get_dummy_value()

    return signature, generate


def _emit_body(context: Any, builder: Any, kernel: Any, kernel_signature: Any, packed_type: Any) -> ir.Function:
    """Emit `void body(i8* packed)`, what each thread of the team executes."""
    name = builder.module.get_unique_name("prunekd_region_body")
    body = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [_BYTES]), name)
    body.linkage = "internal"
    inner = ir.IRBuilder(body.append_basic_block("entry"))
    packed = inner.load(inner.bitcast(body.args[0], packed_type))
    *fields, rows, thread_num, num_threads = cgutils.unpack_tuple(inner, packed)
    query = ir.FunctionType(ir.IntType(32), []).as_pointer()
    index = inner.sext(inner.call(inner.inttoptr(thread_num, query), []), _ADDRESS)
    count = inner.sext(inner.call(inner.inttoptr(num_threads, query), []), _ADDRESS)
    first = inner.sdiv(inner.mul(rows, index), count)
    last = inner.sdiv(inner.mul(rows, inner.add(index, _ADDRESS(1))), count)
    compiled = kernel.dispatcher.get_compile_result(kernel_signature)
    context.add_linking_libs([compiled.library])
    context.call_internal_no_propagate(inner, compiled.fndesc, kernel_signature, [first, last, *fields])
    inner.ret_void()
    return body
