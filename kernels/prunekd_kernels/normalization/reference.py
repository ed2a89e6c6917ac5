"""`normalize` in plain PyTorch: the definition, the oracle of the tests, and the "torch" backend."""

from collections.abc import Sequence

import torch
from torch import Tensor


def normalize_reference(
    images: Tensor, mean: Sequence[float], std: Sequence[float], flip: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """(images - mean) / std of (B, H, W, C) uint8, mirrored where `flip`, as (B, C, H, W) channels-last."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    if flip is not None:
        images = torch.where(flip.view(-1, 1, 1, 1), images.flip(2), images)
    centre = torch.stack([images.new_full((), m, dtype=wide) for m in mean])
    spread = torch.stack([images.new_full((), s, dtype=wide) for s in std])
    normalized = ((images.to(wide) - centre) / spread).to(dtype)
    return normalized.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
