"""What a run learns about single samples: their losses, for dynamic policies, and their training dynamics.

State lies on the training device and is written by index, so noting a batch reads nothing back. In a world of several
processes each sees a part of an epoch; `share` brings the parts together.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from prunekd.common.distributed import World
from prunekd.pruning.epoch_policies import Observations
from prunekd.pruning.training_dynamics import Tracker
from prunekd_kernels import KDStats


class SampleState:
    """Figures for the samples `ids`; all arrays follow their order.

    Args:
        ids: int64 (n,), ascending, every sample the run may see.
        track: names of training-dynamics scores to gather.
        epochs: epochs of the run.
        momentum: of the moving averages of each sample's loss; None for none.
        device: where the training is.
    """

    def __init__(
        self, ids: np.ndarray, track: Sequence[str], epochs: int, momentum: float | None, device: torch.device
    ) -> None:
        self.ids = ids
        self.tracker = Tracker(track, len(ids), epochs, device) if track else None
        self._momentum = momentum
        figures = ("losses",) if momentum is None else ("losses", "mean", "variance")
        self._figures = {name: torch.full((len(ids),), float("nan"), device=device) for name in figures}
        self._at_epoch_start = {name: tensor.cpu() for name, tensor in self._figures.items()}
        self._mine = torch.zeros(len(ids), dtype=torch.bool, device=device)

    @property
    def observations(self) -> Observations:
        """What was known at the beginning of the epoch, the same on every process."""
        arrays = {name: tensor.numpy() for name, tensor in self._at_epoch_start.items()}
        none = np.empty(0, np.float32)
        return Observations(arrays["losses"], arrays.get("mean", none), arrays.get("variance", none))

    def add(self, ids: Tensor, losses: Tensor, stats: KDStats | None) -> None:
        """Note a batch: ids (B,) on the host, unweighted losses (B,) and stats on the device."""
        device = self._mine.device
        positions = torch.from_numpy(np.searchsorted(self.ids, ids.numpy())).to(device, non_blocking=True)
        losses = losses.detach().float()
        self._figures["losses"].index_copy_(0, positions, losses)
        if self._momentum is not None:
            self._average(positions, losses, self._momentum)
        self._mine.index_fill_(0, positions, True)
        if self.tracker:
            assert stats is not None
            self.tracker.update(positions, stats)

    def _average(self, positions: Tensor, losses: Tensor, momentum: float) -> None:
        before, variance = (self._figures[name][positions] for name in ("mean", "variance"))
        first = before.isnan()
        mean = torch.where(first, losses, momentum * before + (1 - momentum) * losses)
        moved = momentum * variance + (1 - momentum) * (losses - before).square()
        self._figures["mean"].index_copy_(0, positions, mean)
        self._figures["variance"].index_copy_(0, positions, torch.where(first, 0.0, moved))

    def end_epoch(self, world: World) -> None:
        """Close an epoch on all processes (a collective call): what was seen in it becomes what policies observe."""
        self.share(world)
        self._at_epoch_start = {name: tensor.cpu().clone() for name, tensor in self._figures.items()}

    def share(self, world: World) -> None:
        """Let every process know what all have noted since the last call (a collective call)."""
        if world.size == 1:
            return
        seen = world.sum(self._mine.float()) > 0
        tracked = self.tracker.state_dict() if self.tracker else {}
        for tensor in (*self._figures.values(), *tracked.values()):
            wide = (len(self.ids), *[1] * (tensor.dim() - 1))
            mine = torch.where(self._mine.view(wide), tensor, torch.zeros_like(tensor))
            # a sample is seen by one process in an epoch, so the sum is that process's value, to the bit
            exact = mine if tensor.is_floating_point() else mine.to(torch.int32)
            tensor.copy_(torch.where(seen.view(wide), world.sum(exact).to(tensor.dtype), tensor))
        self._mine.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything `load_state_dict` needs; shared beforehand if there are several processes."""
        state = {f"now.{name}": tensor for name, tensor in self._figures.items()}
        state |= {f"then.{name}": tensor for name, tensor in self._at_epoch_start.items()}
        if self.tracker:
            state |= {f"tracker.{name}": tensor for name, tensor in self.tracker.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved state, the same on every process."""
        for name, tensor in self._figures.items():
            tensor.copy_(state[f"now.{name}"])
            self._at_epoch_start[name] = state[f"then.{name}"].clone()
        if self.tracker:
            prefix = "tracker."
            self.tracker.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
