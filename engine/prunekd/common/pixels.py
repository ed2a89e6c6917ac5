"""From a batch of pixels to a network's input."""

from collections.abc import Sequence

import torch
from torch import Tensor

from prunekd_kernels import normalize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Normalisation = tuple[Sequence[float], Sequence[float]]  # mean and std, in units of [0, 1] pixel values


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


def renormalize(inputs: Tensor, before: Normalisation, after: Normalisation) -> Tensor:
    """Inputs (B, 3, H, W) normalised with one (mean, std) as another would have it, in the same dtype."""
    (mean, std), (new_mean, new_std) = (torch.tensor(n, dtype=torch.float32) for n in (before, after))
    scale, shift = std / new_std, (mean - new_mean) / new_std
    wide = (1, 3, 1, 1)
    return torch.addcmul(shift.view(wide).to(inputs), inputs, scale.view(wide).to(inputs))
