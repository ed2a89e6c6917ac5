"""A watch for losses that are not finite, which asks the device only when told to."""

from typing import NamedTuple

import torch
from torch import Tensor


class BadStep(NamedTuple):
    """The first step whose loss was not finite: its number, ids int64 (B,) and losses float32 (B,), on the host."""

    step: int
    ids: Tensor
    losses: Tensor


class LossWatch:
    """Keeps ids and losses of the steps since the last look."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, Tensor, Tensor]] = []

    def add(self, step: int, ids: Tensor, losses: Tensor) -> None:
        """Note a step: ids (B,) on the host, losses (B,) on the device."""
        self._steps.append((step, ids.clone(), losses.detach()))

    def look(self) -> BadStep | None:
        """The first bad step since the last look, None if all were finite (one host sync)."""
        steps, self._steps = self._steps, []
        if not steps:
            return None
        bad = torch.stack([~losses.isfinite().all() for _, _, losses in steps]).tolist()
        if not any(bad):
            return None
        step, ids, losses = steps[bad.index(True)]
        return BadStep(step, ids, losses.float().cpu())
