"""What a run learns about single samples: the last loss of each, and its training dynamics.

State lies on the training device and is written by index, so noting a batch reads nothing back. In a world of several
processes each sees a part of an epoch; `share` brings the parts together.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunekd.training.distributed import World
from prunekd_kernels import KDStats


class SampleState:
    """Figures for the samples `ids` (made ascending; all arrays follow that order).

    Args:
        ids: int64 (n,), every sample the run may see.
        track: names of training-dynamics scores to gather.
        epochs: epochs of the run.
        device: where the training is.
    """

    def __init__(self, ids: np.ndarray, track: tuple[str, ...], epochs: int, device: torch.device) -> None:
        self.ids = np.sort(ids)
        self.losses = torch.full((len(ids),), float("nan"), device=device)
        self.observed = self.losses.cpu().numpy()
        self.tracker: Any = None
        self._mine = torch.zeros(len(ids), dtype=torch.bool, device=device)

    def add(self, ids: Tensor, losses: Tensor, stats: KDStats | None) -> None:
        """Note a batch: ids (B,) on the host, unweighted losses (B,) and stats on the device."""
        positions = torch.from_numpy(np.searchsorted(self.ids, ids.numpy())).to(self.losses.device, non_blocking=True)
        self.losses.index_copy_(0, positions, losses.detach().float())
        self._mine.index_fill_(0, positions, True)
        if self.tracker:
            assert stats is not None
            self.tracker.update(positions, stats)

    def end_epoch(self, world: World) -> None:
        """Close an epoch on all processes (a collective call): what was seen in it becomes what policies observe."""
        self.share(world)
        self.observed = self.losses.cpu().numpy().copy()
        if self.tracker:
            self.tracker.end_epoch()

    def share(self, world: World) -> None:
        """Let every process know what all have noted since the last call (a collective call)."""
        if world.size == 1:
            return
        seen = world.sum(self._mine.float()) > 0
        for tensor in self._by_sample():
            wide = (len(self.ids), *[1] * (tensor.dim() - 1))
            mine = torch.where(self._mine.view(wide), tensor, torch.zeros_like(tensor))
            # each sample was seen by one process, so the sum is that process's value, to the bit
            together = world.sum(mine.to(torch.int32) if tensor.dtype == torch.bool else mine).to(tensor.dtype)
            tensor.copy_(torch.where(seen.view(wide), together, tensor))
        self._mine.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything `load_state_dict` needs; shared beforehand if there are several processes."""
        state = {"losses": self.losses, "observed": torch.from_numpy(self.observed)}
        if self.tracker:
            state |= {f"tracker.{name}": tensor for name, tensor in self.tracker.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved state, the same on every process."""
        self.losses.copy_(state["losses"])
        self.observed = state["observed"].numpy().copy()
        if self.tracker:
            prefix = "tracker."
            self.tracker.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    def _by_sample(self) -> list[Tensor]:
        """Tensors with one row per sample, to be changed in place."""
        tracked = self.tracker.state_dict().values() if self.tracker else ()
        return [self.losses, *(t for t in tracked if t.dim() and len(t) == len(self.ids))]
