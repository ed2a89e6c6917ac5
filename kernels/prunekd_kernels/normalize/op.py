"""`normalize` as a registered operator; uint8 pixels carry no gradient, so there is no autograd formula."""

# mypy: disallow-untyped-defs=False

import torch
from torch import Tensor


@torch.library.custom_op("prunekd::normalize", mutates_args=())
def normalize_op(
    images: Tensor, mean: list[float], std: list[float], flip: Tensor | None, dtype: torch.dtype, backend: str
) -> Tensor:
    """Return (B, C, H, W) of `dtype` in channels-last memory from uint8 (B, H, W, C), by "numba" or "triton"."""
    if backend == "numba":
        from . import numba_kernel

        return numba_kernel.forward(images, mean, std, flip, dtype)
    from . import triton_kernel

    return triton_kernel.forward(images, mean, std, flip, dtype)


@normalize_op.register_fake
def _fake(images, mean, std, flip, dtype, backend):
    batch, height, width, channels = images.shape
    return images.new_empty((batch, height, width, channels), dtype=dtype).permute(0, 3, 1, 2)
