"""Numba building blocks: a jit that survives an unwritable cache, 16-bit loads and stores, a vectorisable exp and max.

Fast-math is chosen flag by flag. Reductions may be reassociated (that is what lets LLVM vectorise them), but neither
`nnan` nor `ninf` is ever set, so NaN and infinite logits travel through as IEEE says and as PyTorch does.
"""

# mypy: disallow-untyped-defs=False, disable-error-code="call-arg,import-untyped"

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from ._private_options import jit_without_reference_counts, prefer_wide_vectors

_PREFETCHED_BYTES = 16384
_CACHE_LINE = 64

STRICT = {"contract"}
REDUCTION = {"contract", "reassoc", "nsz"}

_LOG2E = np.float32(1.4426950408889634)
_LN2 = np.float32(0.6931471805599453)
# adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits, here biased
_SHIFT = np.float32(12582912.0 + 127.0)
_SMALLEST = np.float32(-87.0)  # a little below this exp(x) is under the smallest normal float32


def jit(flags: set[str]) -> Callable[[Callable[..., Any]], Any]:
    """Compile without the GIL, cached on disk where some cache folder can be written and in memory where none can.

    Numba's cache notices a change of the function's own file alone: who edits this module deletes `__pycache__`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {"nogil": True, "fastmath": flags, "error_model": "numpy"}
        try:
            return jit_without_reference_counts(function, cache=True, **options)
        except RuntimeError:  # numba: "no locator available for file"
            return jit_without_reference_counts(function, **options)

    return decorate


def flat_view(tensor: torch.Tensor) -> np.ndarray:
    """The memory under a matrix with unit column stride as a 1-D array, so that rows need no copy and loops vectorise.

    NumPy has no bfloat16 and Numba no float16 arithmetic on CPUs, so 16-bit floats travel as integers:
    uint16 holds the bits of a bfloat16, int16 those of a float16 (`load` and `store` tell them apart by that).
    """
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    elif tensor.dtype == torch.float16:
        tensor = tensor.view(torch.int16)
    if not tensor.is_contiguous() and tensor.numel():
        tensor = tensor.as_strided(((tensor.shape[0] - 1) * tensor.stride(0) + tensor.shape[1],), (1,))
    return tensor.numpy().reshape(-1)


def _bitcast(llvm_type: ir.Type) -> Callable[..., Any]:
    return lambda context, builder, signature, args: builder.bitcast(args[0], llvm_type)


@intrinsic
def float_from_bits(typingctx: Any, bits: Any) -> Any:
    """Reinterpret an int32 as a float32."""
    return types.float32(types.int32), _bitcast(ir.FloatType())


@intrinsic
def bits_of_float(typingctx: Any, value: Any) -> Any:
    """Reinterpret a float32 as an int32."""
    return types.int32(types.float32), _bitcast(ir.IntType(32))


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """IEEE 754-2019 maximum of two float32, NaN if either is; LLVM vectorises reductions with it without fast-math."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        single = ir.FloatType()
        declared = ir.FunctionType(single, [single, single])
        return builder.call(builder.module.declare_intrinsic("llvm.maximum", [single], declared), args)

    return types.float32(types.float32, types.float32), generate


@intrinsic
def _prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        item = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.bitcast(builder.gep(item.data, [args[1]]), ir.IntType(8).as_pointer())
        declared = ir.FunctionType(ir.VoidType(), [pointer.type] + [ir.IntType(32)] * 3)
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], declared)
        builder.call(function, [pointer, ir.IntType(32)(0), ir.IntType(32)(3), ir.IntType(32)(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def _float_to_half(typingctx: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.int16(types.float32), generate


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """Element `index` of a `flat_view` as float32 (compiled code only)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        prefer_wide_vectors(builder.function)
        item = context.make_array(signature.args[0])(context, builder, args[0])
        value = builder.load(builder.gep(item.data, [args[1]]))
        single = ir.FloatType()
        if array.dtype == types.uint16:
            return builder.bitcast(builder.shl(builder.zext(value, ir.IntType(32)), ir.IntType(32)(16)), single)
        if array.dtype == types.int16:
            return builder.fpext(builder.bitcast(value, ir.HalfType()), single)
        return value

    return types.float32(array, types.int64), generate


def store(array: np.ndarray, index: int, value: np.float32) -> None:
    """Write a float32 to element `index` of a `flat_view`, rounded to nearest even (compiled code only)."""
    raise NotImplementedError("store() exists in compiled code only")


@overload(store)
def _store(array, index, value):
    if array.dtype == types.uint16:

        def store_bfloat16(array, index, value):
            bits = np.uint32(bits_of_float(value))
            rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            # rounding could carry a NaN's mantissa over into infinity, so a NaN becomes the quiet one
            array[np.uintp(index)] = np.uint16(0x7FC0) if value != value else np.uint16(rounded)

        return store_bfloat16
    if array.dtype == types.int16:

        def store_float16(array, index, value):
            array[np.uintp(index)] = _float_to_half(value)

        return store_float16

    def store_float32(array, index, value):
        array[np.uintp(index)] = value

    return store_float32


@jit(STRICT)
def exp(x: np.float32) -> np.float32:
    """e**x for x <= 88, relative error below 4e-7 (with FMA; 1e-6 near 0 without); 0 below -87; NaN stays NaN.

    x = n ln 2 + r, a polynomial of degree 5 in r (minimax but for e**0 = 1), and n put into the exponent bits. There is
    no branch and no call, so LLVM vectorises it, which it does not do with the C library's. Never reassociated: the
    rounding to n would be optimised away. One float32 for ln 2 is enough, since it happens to be right to 2e-9.
    """
    shifted = x * _LOG2E + _SHIFT
    r = x - (shifted - _SHIFT) * _LN2
    p = np.float32(0.00829761940985918)
    p = p * r + np.float32(0.04191562905907631)
    p = p * r + np.float32(0.16667576134204865)
    p = p * r + np.float32(0.4999889135360718)
    p = p * r + np.float32(0.9999997019767761)
    p = p * r + np.float32(1.0)
    scaled = p * float_from_bits(bits_of_float(shifted) << np.int32(23))
    return np.float32(0.0) if x < _SMALLEST else scaled


@jit(STRICT)
def prefetch_row(array, start, columns):
    """Ask for a short row before it is needed: hardware prefetchers stop at the end of a page, and a row is about one.

    Measured: a quarter off the forward pass of 1024 x 1000 logits that are not in cache. Long rows need no help.
    """
    if columns * array.itemsize <= _PREFETCHED_BYTES:
        for j in range(start, start + columns, _CACHE_LINE // array.itemsize):
            _prefetch(array, j)
