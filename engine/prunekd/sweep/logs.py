"""Where a sweep's numbers go while it runs: TensorBoard, and Weights & Biases for those who use it."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol


class Log(Protocol):
    """Takes numbers of a group (`sweep`, or a run's name) at a step of that group."""

    def write(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Log `values`."""
        ...

    def close(self) -> None:
        """Bring everything home."""
        ...


class TensorBoardLog:
    """Events in a folder; beside the runs' own, `tensorboard --logdir SWEEP` shows both."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder))

    def write(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Log `values` as GROUP/NAME."""
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)
        self._board.flush()

    def close(self) -> None:
        """Close the file."""
        self._board.close()


class WandbLog:
    """One run of a Weights & Biases project for the whole sweep, each group against a step of its own.

    Raises:
        ValueError: wandb is not installed.
    """

    def __init__(self, project: str, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            wandb = import_module("wandb")
        except ImportError as error:
            raise ValueError(
                f"--wandb needs Weights & Biases, which cannot be imported ({error}): pip install wandb, or leave "
                "--wandb out; TensorBoard has the same numbers"
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(project=project, name=name, dir=str(folder), config=dict(config))
        self._known: set[str] = set()

    def write(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Log `values` as GROUP/NAME against GROUP/step."""
        if group not in self._known:
            self._known.add(group)
            self._run.define_metric(f"{group}/step", hidden=True)
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
        self._run.log({f"{group}/step": step, **{f"{group}/{name}": value for name, value in values.items()}})

    def close(self) -> None:
        """Finish the upload, or the file in offline mode."""
        self._run.finish()
