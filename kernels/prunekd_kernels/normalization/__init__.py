"""Pixels to network input: subtract the mean, divide by the std, mirror, convert, in one pass."""

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor

from .._backends import Backend, resolved_name
from .reference import normalize_reference

__all__ = ["normalize"]

_MAX_CHANNELS = 4
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def normalize(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    flip: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """(images - mean) / std per channel, with an optional left-right mirror per image.

    Args:
        images: (B, H, W, C) uint8, C from 1 to 4. Contiguous memory is read as it is; for a batch
            (B, C, H, W) in channels-last memory pass `batch.permute(0, 2, 3, 1)`, which is such a view. Anything else
            is copied first.
        mean: C numbers in pixel units, 0 to 255: 255 times the [0, 1] ones, e.g. 0.485 * 255.
        std: C positive numbers in pixel units.
        flip: (B,) bool, True where the image is to be mirrored; or None.
        dtype: float32, bfloat16 or float16 of the result; computed in float32 and rounded once.
        backend: "auto" or one by name, as in `kd_loss`.

    Returns:
        (B, C, H, W) of `dtype` in channels-last memory.

    Raises:
        ValueError: wrong shape or dtype, or `std` below 1, which is the [0, 1] convention and not pixel units.
        BackendUnavailableError: `backend` names one that cannot run here.
    """
    if images.dim() != 4 or images.dtype != torch.uint8:
        raise ValueError(
            f"images have shape {tuple(images.shape)} and dtype {images.dtype}; expected (B, H, W, C) uint8"
        )
    channels = images.shape[3]
    if not 1 <= channels <= _MAX_CHANNELS:
        raise ValueError(f"images have shape {tuple(images.shape)}, {channels} channels; expected (B, H, W, 1 to 4)")
    if len(mean) != channels or len(std) != channels:
        raise ValueError(
            f"images have {channels} channels in their last dimension, mean {len(mean)} and std {len(std)} entries; "
            "for a (B, C, H, W) batch pass batch.permute(0, 2, 3, 1)"
        )
    if min(std) < 1.0:
        raise ValueError(f"std={list(std)} is below 1: mean and std are in pixel units (multiply [0, 1] ones by 255)")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype={dtype} is not offered; use float32, bfloat16 or float16")
    if flip is not None and (
        flip.shape != images.shape[:1] or flip.dtype != torch.bool or flip.device != images.device
    ):
        raise ValueError(
            f"flip has shape {tuple(flip.shape)}, dtype {flip.dtype} and device {flip.device}; "
            f"expected ({images.shape[0]},) bool on {images.device}"
        )
    name = resolved_name(backend, images.device.type, images.dtype)
    if name == "torch":
        return normalize_reference(images, mean, std, flip, dtype)
    # an operator is for tracing: in eager mode its way through PyTorch's dispatcher, in Python, costs time
    traced = torch.compiler.is_compiling() or type(images) is not Tensor
    run = registered if traced else _run
    return run(images, list(mean), list(std), flip, dtype, name)


def _run(
    images: Tensor, mean: list[float], std: list[float], flip: Tensor | None, dtype: torch.dtype, backend: str
) -> Tensor:
    return import_module(f"{__name__}.{backend}_kernel").forward(images, mean, std, flip, dtype)


# uint8 pixels carry no gradient, so there is no formula for one
registered = torch.library.custom_op("prunekd::normalize", _run, mutates_args=())


@registered.register_fake
def _(
    images: Tensor, mean: list[float], std: list[float], flip: Tensor | None, dtype: torch.dtype, backend: str
) -> Tensor:
    return images.new_empty(images.shape, dtype=dtype).permute(0, 3, 1, 2)
