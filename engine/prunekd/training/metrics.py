"""Metrics: sums that stay on the device, and the log files of a run."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunekd.common.distributed import World
from prunekd.common.files import Kind, read_records, replacing

METRICS_FILE = "metrics.jsonl"
RECORD: dict[str, Kind] = {"kind": str, "step": int}  # what every line of it has


class RunningMetrics:
    """Loss, top-1 hits and sample count, summed on the device.

    Adding a batch starts no transfer to the host; `read` does, so call it between log intervals only.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add per-sample losses (B,) and the hits of logits (B, C) against labels (B,)."""
        hits = (logits.argmax(dim=1) == labels).sum()
        self.sums[0] += losses.detach().sum()
        self.sums[1] += hits
        self.sums[2] += len(labels)

    def read(self, world: World) -> dict[str, float]:
        """Mean loss, top-1 in [0, 1] and sample count over all processes (a collective call, one host sync)."""
        loss, hits, count = world.sum(self.sums.clone()).tolist()
        return {"loss": loss / max(count, 1), "top1": hits / max(count, 1), "samples": count}

    def reset(self) -> None:
        """Forget what was added."""
        self.sums.zero_()


class RunLog:
    """`metrics.jsonl` and TensorBoard events of one run; a resumed run drops what lies after its checkpoint."""

    def __init__(self, out: Path, resumed_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = out / METRICS_FILE
        kept = [line for line, record in read_records(self.path, RECORD) if record["step"] <= resumed_step]
        with replacing(self.path) as temporary:
            temporary.write_bytes(b"".join(kept))
        self._file = self.path.open("ab")
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=resumed_step + 1 if resumed_step else None)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Log plain `values` of one `kind` (train, epoch, eval) at a global step; non-finite numbers become null."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        self._file.write(json.dumps({"kind": kind, "step": step, **plain}).encode() + b"\n")
        self._file.flush()
        for key, value in plain.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{kind}/{key}", value, step)

    def close(self) -> None:
        """Close both files."""
        self._file.close()
        self._board.close()
