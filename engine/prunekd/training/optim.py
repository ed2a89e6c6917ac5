"""Optimizers by name, torch's fused versions, with the customary split of decayed and undecayed parameters."""

import torch
from torch import nn

from prunekd.training.recipe import OptimizerSettings


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
    """SGD or AdamW over the model's parameters; the fused step is one pass over them on CPU and GPU alike."""
    groups = parameter_groups(model, settings)
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov, fused=True
        )
    assert settings.name == "adamw"
    first, second = settings.betas
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(first, second), fused=True)
