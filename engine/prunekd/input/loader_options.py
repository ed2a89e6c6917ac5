"""The options of a Loader: checked, and resolved where they are left open."""

import torch

from prunekd.input.views import ViewSettings

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
SIZE = 224


def check_options(
    batch_size: int,
    seed: int,
    dtype: torch.dtype,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    rank: int | None,
    world_size: int | None,
) -> None:
    """Raise ValueError for a value out of range."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}; it must be in [0, 2^64)")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype}; it must be one of {', '.join(map(str, DTYPES))}")
    if not (len(mean) == len(std) == 3 and 0 <= min(mean) <= max(mean) <= 1 and 1 / 255 <= min(std) <= max(std) <= 1):
        raise ValueError(
            f"mean is {mean} and std {std}; give three numbers each in units of [0, 1] pixel values (numbers in units "
            "of 0 to 255 divided by 255), std not below 1 / 255"
        )
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank is {rank} and world_size {world_size}; give both, or neither for torch.distributed's")
    if rank is not None and world_size is not None and not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank} and world_size {world_size}; rank must be in [0, world_size)")


def resolve_view(split: str, size: int | None, view: ViewSettings | None) -> ViewSettings:
    """The view asked for, or the usual one of a split: random resized crops for `train`, else the central crop."""
    if view is None:
        kind = "random_resized_crop" if split == "train" else "center"
        return ViewSettings(kind=kind, size=SIZE if size is None else size)
    if size not in (None, view.size):
        raise ValueError(f"size is {size}, but the view's is {view.size}; give one of them, or the same")
    return view


def resolve_device(name: str | torch.device) -> torch.device:
    """The device of a name, `auto` and an index left open resolved; ValueError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device}; it must be cpu, cuda or auto")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise ValueError(f"device is {device}, but torch sees no GPU; use cpu or auto, or see `prunekd doctor`")
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


def resolve_pin(pin: bool | None, on_gpu: bool) -> bool:
    """Whether to pin memory; ValueError if that is asked for in vain."""
    if pin and not torch.cuda.is_available():
        raise ValueError("pin is True, but torch sees no GPU to copy to; leave it out or use pin=False")
    return on_gpu if pin is None else pin
