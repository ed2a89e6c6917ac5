"""`kd_loss_sparse` in plain PyTorch: the teacher's distribution from its top K logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._inputs import Inputs
from .._reference import target_scale


def teacher_distribution(inputs: Inputs, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the teacher's probabilities (B, C) at the temperature, with logits reshaped by `class_scale`."""
    ids, logits, logsumexp, std = inputs.teacher
    assert ids is not None
    assert logits is not None
    values = logits.detach().to(dtype)
    if inputs.class_scale is not None and std is not None:
        values = values * (target_scale(targets, inputs.class_scale, dtype) / std.detach().to(dtype)).unsqueeze(1)
    total = None if logsumexp is None else logsumexp.detach().to(dtype)
    return sparse_targets(ids, values, total, inputs.temperature, inputs.student.shape[1])


def sparse_targets(
    topk_ids: Tensor, topk_logits: Tensor, logsumexp: Tensor | None, temperature: float | Tensor, num_classes: int
) -> Tensor:
    """The teacher's distribution (B, C) at the temperature from its top K logits, in their dtype.

    Without `logsumexp` the K classes share all the mass; with it they keep their own probabilities, and what is missing
    to 1 is spread evenly over the other classes.
    """
    ids = topk_ids.long()
    if logsumexp is None:
        return torch.zeros(ids.shape[0], num_classes, dtype=topk_logits.dtype, device=ids.device).scatter(
            1, ids, F.softmax(topk_logits / temperature, dim=1)
        )
    known = torch.exp(topk_logits / temperature - logsumexp.unsqueeze(1))
    others = num_classes - ids.shape[1]
    missing = (1.0 - known.sum(1, keepdim=True)).clamp(min=0.0) if others else torch.zeros_like(known[:, :1])
    return (missing / max(others, 1)).expand(-1, num_classes).scatter(1, ids, known)
