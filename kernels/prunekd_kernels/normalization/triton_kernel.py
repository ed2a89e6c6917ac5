"""`normalize` for CUDA GPUs, in Triton: one thread per value, in memory order but for the read of a mirrored row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._launch import blocks, device_guard

_BLOCK = 1024


def forward(images: Tensor, mean: list[float], std: list[float], flip: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return (B, C, H, W) of `dtype` in channels-last memory from uint8 (B, H, W, C)."""
    batch, height, width, channels = images.shape
    images = images.contiguous()
    out = images.new_empty((batch, height, width, channels), dtype=dtype)
    per_image = height * width * channels
    if images.numel():
        # up to four channels travel as arguments: a table on the device would have to be copied there
        means, stds = [*mean, 0.0, 0.0, 0.0][:4], [*std, 1.0, 1.0, 1.0][:4]
        with device_guard(images):
            _normalize_kernel[(batch, blocks(per_image, _BLOCK))](
                images, images if flip is None else flip.contiguous(), out, *means, *[1.0 / s for s in stds],
                per_image, width, CHANNELS=channels, FLIP=flip is not None, BLOCK=_BLOCK, num_warps=4,
            )  # fmt: skip
    return out.permute(0, 3, 1, 2)


@triton.jit
def _normalize_kernel(
    images, flip, out, mean_0, mean_1, mean_2, mean_3, inv_0, inv_1, inv_2, inv_3, per_image, width,
    CHANNELS: tl.constexpr, FLIP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = k < per_image
    channel = k % CHANNELS
    source = k
    if FLIP:
        x = (k // CHANNELS) % width
        mirrored = tl.load(flip + image).to(tl.int32) != 0
        source = tl.where(mirrored, k + (width - 1 - 2 * x) * CHANNELS, k)
    pixel = tl.load(images + image * per_image + source, mask=ok, other=0).to(tl.float32)
    mean = tl.where(channel < 2, tl.where(channel == 0, mean_0, mean_1), tl.where(channel == 2, mean_2, mean_3))
    inv = tl.where(channel < 2, tl.where(channel == 0, inv_0, inv_1), tl.where(channel == 2, inv_2, inv_3))
    value = (pixel - mean) * inv
    tl.store(out + image * per_image + k, value.to(out.dtype.element_ty), mask=ok)
