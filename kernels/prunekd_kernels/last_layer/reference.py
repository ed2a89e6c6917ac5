"""`teacher_head_kd` in plain PyTorch: the teacher's logits are made in full."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._inputs import Inputs
from ..dense.reference import softened


def teacher_distribution(inputs: Inputs, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Return softmax(z_t / T) (B, C) of the reshaped logits features @ weight.T + bias."""
    features, weight, bias = (None if tensor is None else tensor.detach().to(dtype) for tensor in inputs.teacher)
    assert features is not None
    assert weight is not None
    return softened(F.linear(features, weight, bias), inputs, targets)
