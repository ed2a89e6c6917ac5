"""Models by name: the CIFAR ResNets (`cifar_resnet20`) and every timm model (`resnet18`)."""

import difflib
from typing import Any

import torch
from torch import nn

from prunekd.models.cifar_resnet import DEPTHS, CifarResNet

CIFAR_PREFIX = "cifar_resnet"


def create_model(
    name: str,
    num_classes: int,
    *,
    seed: int | None = None,
    pretrained: bool = False,
    drop_path: float = 0.0,
    size: int | None = None,
) -> nn.Module:
    """Build a model in float32 on the CPU.

    Args:
        name: `cifar_resnet{8,14,20,32,56,110}` or a timm architecture, with its weight tag if `pretrained`.
        num_classes: size of the last layer.
        seed: initialise from this seed, leaving the global generator as it was; None uses the global generator.
        pretrained: load timm's weights (needs the network or timm's cache).
        drop_path: stochastic depth rate, for timm models that take one.
        size: side in pixels of the square images, for timm models that are built for one size (vision transformers);
            None is timm's own. Other models take any.

    Raises:
        ValueError: unknown name (with the nearest match), pretrained weights that do not exist, or a size or rate that
            the model cannot have.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if name.startswith(CIFAR_PREFIX):
            return _cifar_resnet(name, num_classes, pretrained, drop_path)
        return _timm_model(name, num_classes, pretrained, drop_path, size)


def _cifar_resnet(name: str, num_classes: int, pretrained: bool, drop_path: float) -> nn.Module:
    suffix = name[len(CIFAR_PREFIX) :]
    if suffix not in {str(depth) for depth in DEPTHS}:
        names = ", ".join(f"{CIFAR_PREFIX}{depth}" for depth in DEPTHS)
        raise ValueError(f"unknown model {name!r}; the CIFAR ResNets are {names}")
    if pretrained:
        raise ValueError(f"there are no pretrained weights for {name}; train one and give its run folder")
    if drop_path:
        raise ValueError(f"{name} has no stochastic depth; set model.drop_path to 0")
    return CifarResNet(int(suffix), num_classes)


def _timm_model(name: str, num_classes: int, pretrained: bool, drop_path: float, size: int | None) -> nn.Module:
    import timm

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise ValueError(f"unknown model {name!r}{hint}; `timm.list_models()` lists timm's, cifar_resnet20 is ours")
    rate: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    own = _own_size(name)
    sized: dict[str, Any] = {"img_size": size} if size is not None and own not in (None, size) else {}
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **rate, **sized)
    except (TypeError, AssertionError, ArithmeticError, ValueError, RuntimeError) as error:
        if "img_size" in sized and not (rate and "drop_path_rate" in str(error)):
            raise ValueError(
                f"{name} is made for images of {own} x {own} pixels and cannot be built for {size} x {size} ({error}); "
                f"use --set train_view.size={own} --set eval_view.size={own}, or a convolutional model such as resnet18"
            ) from None
        if rate and isinstance(error, TypeError):
            raise ValueError(f"{name} has no stochastic depth; set model.drop_path to 0") from None
        raise


def _own_size(name: str) -> int | None:
    """Side in pixels of the images that a timm model is built for; None for one that takes any."""
    import timm

    try:
        config = timm.get_pretrained_cfg(name) or timm.get_pretrained_cfg(name.split(".")[0])
    except RuntimeError:  # a weight tag that does not exist, which creating the model names
        return None
    return int(config.input_size[-1]) if config is not None and config.fixed_input_size else None
