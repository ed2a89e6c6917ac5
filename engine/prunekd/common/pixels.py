"""From a batch of pixels to a network's input."""

from collections.abc import Sequence

import torch
from torch import Tensor

from prunekd_kernels import normalize


def to_input(images: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    """Normalise a batch in one pass.

    Args:
        images: uint8 (B, 3, H, W) in channels-last memory.
        mean, std: three numbers each in units of [0, 1] pixel values (timm's and torchvision's convention).
        dtype: float32, bfloat16 or float16.

    Returns:
        (B, 3, H, W) of `dtype` in channels-last memory, on the images' device.
    """
    scaled_mean, scaled_std = [255 * value for value in mean], [255 * value for value in std]
    return normalize(images.permute(0, 2, 3, 1), scaled_mean, scaled_std, dtype=dtype)
