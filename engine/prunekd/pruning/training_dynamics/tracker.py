"""Accumulators of the training dynamics: 40 bytes per sample for the six scores together (and 4 for p_mean)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prunekd.common.registry import unknown
from prunekd.pruning.scores.table import Scores
from prunekd.pruning.training_dynamics.definitions import DECAY, DYNAMICS, EARLY, WINDOW
from prunekd_kernels import KDStats

_LARGEST_ODDS = 16.0  # log-odds are kept as float16: p to within 3e-4, finer at both ends


class Tracker:
    """Gathers training-dynamics scores of the samples 0 ... count - 1 on the training device.

    A sample is presented at most once in an update; epochs in which it is not presented change nothing for it, so
    windows are of presentations, not of epochs. Nothing is read back from the device.

    Args:
        names: keys of DYNAMICS.
        count: number of samples.
        epochs: epochs of the run; windows are shorter than ten presentations if there are fewer.
        device: where the statistics come from.

    Raises:
        ValueError: an unknown name, or a windowed score in a run of one epoch.
    """

    def __init__(self, names: Sequence[str], count: int, epochs: int, device: torch.device) -> None:
        for name in names:
            if name not in DYNAMICS:
                raise unknown("training-dynamics score", name, DYNAMICS)
        self.names = tuple(dict.fromkeys(names))
        windowed = [name for name in self.names if DYNAMICS[name].windowed]
        self.window = min(WINDOW, epochs)
        if windowed and self.window < 2:
            raise ValueError(f"{', '.join(windowed)} look at how predictions change and need at least 2 epochs, not 1")

        def state(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros(count, *shape, dtype=dtype, device=device)

        # every tensor has one row per sample; `seen` counts presentations
        self._state: dict[str, Tensor] = {"seen": state(torch.int16)}
        if "forgetting" in self.names:
            self._state["forgetting"] = state(torch.int16)  # 4 x events + 2 x ever right + right the last time
        for name in ("aum", "el2n_early", "p_mean", "dyn_unc", "dual"):
            if name in self.names:
                self._state[name] = state(torch.float32)
        if "tdds" in self.names:
            self._state["tdds"] = state(torch.float16)
        if windowed:
            self._state["odds"] = state(torch.float16, self.window - 1)  # log-odds of p, the oldest first

    def update(self, positions: Tensor, stats: KDStats) -> None:
        """Note a presentation: positions int64 (B,), all different, and the student's statistics (B,)."""
        seen = self._state["seen"][positions]
        if "forgetting" in self.names:
            before = self._state["forgetting"][positions]
            right = stats.correct.to(torch.int16)
            forgotten = (before & 1) * (1 - right)
            self._put("forgetting", positions, ((before >> 2) + forgotten) * 4 + ((before & 2) | 2 * right) + right)
        if "aum" in self.names:
            self._add("aum", positions, stats.margin)
        if "p_mean" in self.names:
            self._add("p_mean", positions, stats.p_y)
        if "el2n_early" in self.names:
            self._add("el2n_early", positions, torch.where(seen < EARLY, stats.el2n, 0.0))
        if "odds" in self._state:
            self._update_windows(positions, stats.p_y, seen)
        self._put("seen", positions, seen + 1)

    def state_dict(self) -> dict[str, Tensor]:
        """The accumulators themselves, by name; each has one row per sample."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over accumulators."""
        for name, tensor in self._state.items():
            tensor.copy_(state[name])

    def scores(self) -> dict[str, np.ndarray]:
        """Each score as float32 (count,); NaN where a sample was presented too seldom for it."""
        seen = self._state["seen"].float()
        found = {}
        for name in self.names:
            if name == "forgetting":
                packed = self._state[name]
                value = torch.where((packed & 2) > 0, (packed >> 2).float(), float("inf"))
            elif name == "tdds":
                value = self._state[name].float()
            else:
                shown = {"aum": seen, "p_mean": seen, "el2n_early": seen.clamp(max=EARLY)}.get(
                    name, seen - self.window + 1
                )
                value = self._state[name] / shown
            needed = self.window if DYNAMICS[name].windowed else 1
            found[name] = torch.where(seen >= needed, value, float("nan")).cpu().numpy()
        return found

    def _update_windows(self, positions: Tensor, p_y: Tensor, seen: Tensor) -> None:
        odds = torch.logit(p_y.float()).clamp(-_LARGEST_ODDS, _LARGEST_ODDS)
        window = torch.cat([self._state["odds"][positions], odds.half()[:, None]], dim=1)
        self._put("odds", positions, window[:, 1:])
        log_odds = window.float()
        complete = seen + 1 >= self.window
        p = log_odds.sigmoid()
        spread = p.std(dim=1, correction=1)
        if "dyn_unc" in self.names:
            self._add("dyn_unc", positions, torch.where(complete, spread, 0.0))
        if "dual" in self.names:
            self._add("dual", positions, torch.where(complete, spread * (1 - p.mean(dim=1)), 0.0))
        if "tdds" in self.names:
            change = p[:, 1:] * F.logsigmoid(log_odds).diff(dim=1).abs()
            depth = (change - change.mean(dim=1, keepdim=True)).norm(dim=1)
            before = self._state["tdds"][positions].float()
            moved = torch.where(seen + 1 == self.window, depth, DECAY * depth + (1 - DECAY) * before)
            self._put("tdds", positions, torch.where(complete, moved, before))

    def _put(self, name: str, positions: Tensor, values: Tensor) -> None:
        state = self._state[name]
        state.index_copy_(0, positions, values.to(state.dtype))

    def _add(self, name: str, positions: Tensor, values: Tensor) -> None:
        self._put(name, positions, self._state[name][positions] + values)


def tracked_scores(
    tracker: Tracker, ids: np.ndarray, labels: np.ndarray, num_classes: int, provenance: Mapping[str, object]
) -> Scores:
    """What a tracker gathered as a scores table: ids int64 (n,) ascending and labels (n,) of its samples."""
    return Scores(
        ids=ids,
        labels=labels,
        columns=tracker.scores(),
        definitions={name: DYNAMICS[name].definition for name in tracker.names},
        hard_ends={name: DYNAMICS[name].hard_end for name in tracker.names},
        class_std=np.full(num_classes, np.nan),
        provenance=dict(provenance),
    )
