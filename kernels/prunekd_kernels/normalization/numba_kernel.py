"""`normalize` for CPUs, compiled by Numba: one read of the pixels, one write of the result."""

import numpy as np
import torch
from torch import Tensor

from .._numba_math import STRICT, flat_view, jit, store
from .._parallel import open_region, planned


def forward(images: Tensor, mean: list[float], std: list[float], flip: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return (B, C, H, W) of `dtype` in channels-last memory from uint8 (B, H, W, C)."""
    batch, height, width, channels = images.shape
    images = images.contiguous()
    out = torch.empty(batch, height, width, channels, dtype=dtype)
    # one entry per byte of an image row, so that the inner loop needs no index arithmetic and vectorises
    scale = np.tile((1.0 / np.asarray(std)).astype(np.float32), width)
    shift = np.tile((-np.asarray(mean) / np.asarray(std)).astype(np.float32), width)
    mirrored = np.zeros(batch, np.bool_) if flip is None else flip.contiguous().numpy()
    turned = np.empty((batch, width * channels), np.uint8)  # room for a mirrored row of each image
    call = planned(_normalize_entry, batch, height * width * channels)
    call.run(
        *call.plan, height, width, channels,
        images.reshape(-1).numpy(), scale, shift, mirrored, turned.reshape(-1), flat_view(out.reshape(-1)),
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)


@jit(STRICT)
def _normalize_row(pixels, start, scale, shift, out, out_start):
    for k in range(scale.shape[0]):
        store(out, out_start + k, np.float32(pixels[np.uintp(start + k)]) * scale[k] + shift[k])


@jit(STRICT)
def _mirror_row(pixels, start, width, channels, turned, turned_start):
    for x in range(width):
        for c in range(channels):
            turned[np.uintp(turned_start + x * channels + c)] = pixels[np.uintp(start + (width - 1 - x) * channels + c)]


@jit(STRICT)
def _normalize_images(first, last, height, width, channels, pixels, scale, shift, mirrored, turned, out):
    stride = width * channels
    for i in range(first, last):
        for y in range(height):
            start = (i * height + y) * stride
            if mirrored[i]:
                _mirror_row(pixels, start, width, channels, turned, i * stride)
                _normalize_row(turned, i * stride, scale, shift, out, start)
            else:
                _normalize_row(pixels, start, scale, shift, out, start)


@jit(STRICT)
def _normalize_entry(first, last, chunk, size, gomp_parallel, *args):
    open_region(_normalize_images, args, first, last, chunk, size, gomp_parallel)
