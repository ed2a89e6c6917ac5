"""A watch for losses that are not finite, which asks the device only when told to."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from prunekd.common.distributed import World
from prunekd.common.files import write_json
from prunekd.training.checkpoint import checkpoints


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


def require_finite(watch: LossWatch, world: World, out: Path, epoch: int) -> None:
    """Stop a run if a loss since the last look was not finite (a collective call, one host sync).

    Raises:
        RuntimeError: there was one; the batch's ids and losses are dumped to `out`, and the message names the last
            checkpoint, which is a good one since none is written without a look.
    """
    bad = watch.look()
    if not world.agree(bad is not None):
        return
    if bad is not None:
        samples = [{"id": i, "loss": str(x)} for i, x in zip(bad.ids.tolist(), bad.losses.tolist(), strict=True)]
        dump = {"step": bad.step, "epoch": epoch, "rank": world.rank, "samples": samples}
        write_json(out / f"nonfinite-rank{world.rank}.json", dump)
    latest = checkpoints(out / "checkpoints")[-1:]
    raise RuntimeError(
        f"the loss is not finite at step {bad.step if bad else '(of another process)'} of epoch {epoch}; the batch's "
        f"ids and losses are in {out}/nonfinite-rank*.json; lower optimizer.lr, set clip_norm, or use precision bf16; "
        f"last good checkpoint: {latest[0] if latest else 'none yet'}"
    )
