"""Modules that users bring: how they are named on disk, and what they must give."""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

OWN = "module:"  # before the class name, where a model card or a run names an architecture


def own_name(module: nn.Module) -> str:
    """The name under which run.json and model cards record a module of the user's own: `module:CLASS`."""
    return f"{OWN}{type(module).__qualname__}"


def check_logits(module: nn.Module, num_classes: int, size: int, role: str) -> None:
    """Raise ValueError unless `module` gives logits (2, num_classes) for images (2, 3, size, size), in eval mode.

    Parameters, statistics and the mode of every part of the module stay as they are.

    Args:
        role: what the message calls it.
    """
    if isinstance(module, DistributedDataParallel):
        raise ValueError(f"{role} is wrapped in DistributedDataParallel; give the module itself (module.module)")
    training = {part: part.training for part in module.modules()}
    parameter = next(module.parameters(), torch.zeros(0))
    example = torch.zeros(2, 3, size, size, device=parameter.device, dtype=parameter.dtype)
    name = type(module).__name__
    try:
        with torch.no_grad():
            logits = module.eval()(example)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{role}, a {name}, fails on images of {size} x {size} pixels ({error}); it must take normalized images "
            "(B, 3, H, W); give the size it was made for"
        ) from error
    finally:
        for part, was in training.items():
            part.training = was
    if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{role}, a {name}, gives {given} for 2 images and {num_classes} classes; it must return a tensor of "
            f"logits (2, {num_classes}), one per class"
        )
