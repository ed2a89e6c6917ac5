"""Optimizers by name: torch's fused versions, timm's LAMB, NVIDIA Apex's fused ones where they are really there."""

import importlib.util
from typing import Any

import torch
from torch import nn

from prunekd.training.settings import OptimizerSettings


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict[str, object]]:
    """Parameters with and, unless `decay_norms`, without weight decay (norm weights and all biases: ndim <= 1)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if settings.decay_norms:
        return [{"params": parameters, "weight_decay": settings.weight_decay}]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def create_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer `settings` name over the model's parameters.

    torch's `sgd` and `adamw` step in one fused pass, on CPU and GPU alike. LAMB's own gradient clipping is off in both
    versions: `clip_norm` does that for every optimizer.

    Raises:
        ValueError: an Apex optimizer where NVIDIA's Apex is not installed; the message says what is there instead.
    """
    groups = parameter_groups(model, settings)
    lr, momentum, nesterov = settings.lr, settings.momentum, settings.nesterov
    betas = (settings.betas[0], settings.betas[1])
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, fused=True)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    if settings.name == "lamb":
        from timm.optim import Lamb

        lamb: torch.optim.Optimizer = Lamb(groups, lr=lr, betas=betas, max_grad_norm=None)
        return lamb
    apex = _apex(settings.name)
    if settings.name == "apex_sgd":
        return apex.FusedSGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)
    assert settings.name == "apex_lamb"
    return apex.FusedLAMB(groups, lr=lr, betas=betas, max_grad_norm=0.0)


def apex_problem() -> str | None:
    """Why NVIDIA Apex's fused optimizers cannot be used here, None if they can.

    PyPI's project named `apex` is another one (a toolkit for Pyramid web applications); only NVIDIA's brings the
    compiled module `amp_C`.
    """
    if importlib.util.find_spec("amp_C") is not None:
        return None
    get = (
        "NVIDIA's comes with its PyTorch containers (nvcr.io/nvidia/pytorch), or from source: pip install "
        "--no-build-isolation --config-settings '--build-option=--cpp_ext' --config-settings "
        "'--build-option=--cuda_ext' git+https://github.com/NVIDIA/apex"
    )
    if importlib.util.find_spec("apex") is None:
        return f"NVIDIA Apex is not installed; {get}"
    if importlib.util.find_spec("apex.optimizers") is None:
        return f"the installed package `apex` is PyPI's, another project than NVIDIA Apex; pip uninstall apex. {get}"
    return f"NVIDIA Apex was installed without its compiled extensions (no module amp_C); {get}"


def _apex(name: str) -> Any:
    problem = apex_problem()
    if problem:
        raise ValueError(f"optimizer.name is {name}, but {problem}. Or use {name.removeprefix('apex_')}")
    import apex.optimizers

    return apex.optimizers
