"""A run's own stream of torch random numbers (dropout, stochastic depth).

Data randomness belongs to the plan. What is left draws from torch's global generators; each run swaps its own state in
while it works, so that runs which take turns neither disturb each other nor the program around them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Randomness:
    """States of the CPU generator and, on a GPU, of that device's, started from `seed`."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self.states: dict[str, Tensor] = {"cpu": torch.Generator().manual_seed(seed).get_state()}
        if self._device:
            self.states["cuda"] = torch.Generator(self._device).manual_seed(seed).get_state()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside the block torch draws from this stream; afterwards from where it drew before."""
        outer = self._get()
        self._set(self.states)
        try:
            yield
        finally:
            self.states = self._get()
            self._set(outer)

    def capture(self) -> dict[str, Tensor]:
        """The stream's present states, asked for inside the block."""
        return self._get()

    def _get(self) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if self._device:
            states["cuda"] = torch.cuda.get_rng_state(self._device)
        return states

    def _set(self, states: dict[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self._device:
            torch.cuda.set_rng_state(states["cuda"], self._device)
