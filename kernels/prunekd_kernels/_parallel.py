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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ._private_options import call_compiled, compiled_signature

_WORTH_A_THREAD = 1 << 19  # elements; waking a sleeping thread costs about as long as working on this many
_CHUNKS_PER_THREAD = 8
_BYTES = ir.IntType(8).as_pointer()


class Call(NamedTuple):
    """How to run an entry over all rows: `call.run(*call.plan, *args)`."""

    run: Callable[..., None]
    plan: tuple[int, int, int, int, int]
    """first, last, chunk, size of the team, address of GOMP_parallel: the first arguments of an entry."""


def planned(entry: Callable[..., None], num_rows: int, num_columns: int) -> Call:
    """Plan a call of a compiled function over [0, num_rows), in chunks, on up to `torch.get_num_threads()` threads.

    Args:
        entry: a compiled function of (first, last, chunk, size, gomp_parallel, *args) that passes all on to
            `open_region(kernel, ...)`. It stands beside the kernel in its module and names it, since Numba's cache on
            disk can keep a function that names another, and cannot keep one that takes it as an argument.
        num_rows: how many rows there are.
        num_columns: elements of work in a row; small tasks stay on the calling thread.
    """
    threads = torch.get_num_threads()
    useful = min(threads, num_rows, num_rows * num_columns // _WORTH_A_THREAD)
    if useful <= 1:
        return Call(entry, (0, num_rows, num_rows, 1, 0))
    chunk = max(1, num_rows // (_CHUNKS_PER_THREAD * useful))
    gomp_parallel = _gomp_parallel()
    if gomp_parallel is None:
        return Call(partial(_run_in_pool, entry, useful), (0, num_rows, num_rows, 1, 0))
    # always the whole team: a changing size makes the runtime end threads and start new ones
    return Call(entry, (0, num_rows, chunk, threads, gomp_parallel))


def _run_in_pool(entry: Callable[..., None], threads: int, first: int, last: int, *args: Any) -> None:
    bounds = [first + (last - first) * i // threads for i in range(threads + 1)]
    pool = _pool(os.getpid(), torch.get_num_threads())
    futures = [pool.submit(entry, bounds[i], bounds[i + 1], *args) for i in range(1, threads)]
    entry(bounds[0], bounds[1], *args)
    for future in futures:
        future.result()


@lru_cache(maxsize=1)
def _gomp_parallel() -> int | None:
    """The address of GOMP_parallel in the OpenMP runtime that PyTorch has loaded, or None if there is no such."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError, TypeError):
        return None


@lru_cache(maxsize=1)
def _pool(process_id: int, size: int) -> ThreadPoolExecutor:
    """One pool per size and process: threads do not survive a fork, so a child makes its own."""
    return ThreadPoolExecutor(size, thread_name_prefix="prunekd-kernels")


@intrinsic
def open_region(typingctx, kernel, args, first, last, chunk, size, gomp_parallel):
    """GOMP_parallel(body, &packed, size, 0), or body(&packed) where the team has one thread.

    body(packed) calls `kernel(first, last, *args)` on chunks of rows until none is left. What the kernel returns or
    raises is lost. Each thread takes the next chunk when it is ready for one: a sleeping thread wakes late (0.15 ms on
    a virtual machine, a third of the work on a small batch), and the others need not wait for it. The address is an
    argument rather than a constant so that the compiled code can be cached on disk.
    """
    integer = types.int64
    signature = types.void(kernel, args, integer, integer, integer, integer, integer)
    kernel_signature = compiled_signature(typingctx, kernel, (integer, integer, *args.types))

    def generate(context, builder, signature, values):
        _, packed_args, start, end, step, team_size, region = values
        unpacked = [builder.extract_value(packed_args, position) for position in range(len(args.types))]
        fields = [start, end, step, *unpacked]  # the first: rows handed out
        with builder.goto_entry_block():
            packed = builder.alloca(ir.LiteralStructType([field.type for field in fields]))
        for position, field in enumerate(fields):
            builder.store(field, _field(builder, packed, position))
        body = _emit_body(context, builder, kernel, kernel_signature, packed.type)
        data = builder.bitcast(packed, _BYTES)
        with builder.if_else(builder.icmp_signed(">", team_size, team_size.type(1))) as (team, alone):
            with team:
                region_type = ir.FunctionType(ir.VoidType(), [body.type, _BYTES, ir.IntType(32), ir.IntType(32)])
                entrance = builder.inttoptr(region, region_type.as_pointer())
                builder.call(entrance, [body, data, builder.trunc(team_size, ir.IntType(32)), ir.IntType(32)(0)])
            with alone:
                builder.call(body, [data])
        return context.get_dummy_value()

    return signature, generate


def _field(builder: ir.IRBuilder, packed: ir.Value, position: int) -> ir.Value:
    return builder.gep(packed, [ir.IntType(32)(0), ir.IntType(32)(position)], inbounds=True)


def _emit_body(context: Any, builder: Any, kernel: Any, kernel_signature: Any, packed_type: Any) -> ir.Function:
    """Emit `void body(i8* packed)`, what each thread of the team executes."""
    name = builder.module.get_unique_name("prunekd_region_body")
    body = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [_BYTES]), name)
    body.linkage = "internal"
    body.attributes.add("noinline")  # it has two callers and is long to compile
    enter, take, work, leave = (body.append_basic_block(label) for label in ("enter", "take", "work", "leave"))
    inner = ir.IRBuilder(enter)
    packed = inner.bitcast(body.args[0], packed_type)
    rows, step = (inner.load(_field(inner, packed, position)) for position in (1, 2))
    inner.branch(take)
    inner.position_at_end(take)
    first = inner.atomic_rmw("add", _field(inner, packed, 0), step, "monotonic")
    inner.cbranch(inner.icmp_signed("<", first, rows), work, leave)
    inner.position_at_end(work)
    end = inner.add(first, step)
    last = inner.select(inner.icmp_signed("<", end, rows), end, rows)
    args = [inner.load(_field(inner, packed, 3 + position)) for position in range(len(kernel_signature.args) - 2)]
    call_compiled(context, inner, kernel, kernel_signature, [first, last, *args])
    inner.branch(take)
    inner.position_at_end(leave)
    inner.ret_void()
    return body
