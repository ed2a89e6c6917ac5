"""Exponential moving average of a model's weights."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    """A copy of a model that follows it: average <- decay * average + (1 - decay) * weights, after every step.

    Floating-point buffers (batch statistics) are averaged too, counters are copied. Nothing is read back from the
    device, which torch's AveragedModel does on every update of a model on a GPU.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._average = get_ema_multi_avg_fn(decay)
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._floats = [(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()]
        self._others = [(ours, theirs) for ours, theirs in pairs if not ours.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the model's present weights."""
        self._average([ours for ours, _ in self._floats], [theirs for _, theirs in self._floats], None)
        for ours, theirs in self._others:
            ours.copy_(theirs)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over averaged weights."""
        self.model.load_state_dict(state)
