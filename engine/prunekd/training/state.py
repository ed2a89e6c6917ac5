"""Checkpoints: safetensors and JSON in one folder that appears whole by a rename.

`step-00000042/` holds model.safetensors, optimizer.safetensors (with the generators' states and the metric sums)
and state.json (position, param groups, scaler). Nothing is pickled.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prunekd.common.files import read_json, sync_file, sync_folder, write_json
from prunekd.training.randomness import Randomness

STEP_FOLDER = re.compile(r"step-(\d{8})")
FORMAT = 1


@dataclass(slots=True)
class Trainable:
    """What changes while training: restored in place by `load_checkpoint`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    metric_sums: Tensor
    randomness: Randomness


def save_checkpoint(folder: Path, step: int, parts: Trainable, position: dict[str, Any], keep_last: int) -> Path:
    """Write checkpoint `step` under `folder`, then remove all but the newest `keep_last`.

    Raises:
        OSError: the disk is full or not writable; older checkpoints are untouched and the message says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        _write(temporary, parts, position)
        for file in temporary.iterdir():
            sync_file(file)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(
            f"checkpoint {target} could not be written ({error}); earlier checkpoints are kept: free some space "
            "and go on with `--resume auto`"
        ) from error
    for old in checkpoints(folder)[:-keep_last]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints under `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(item for item in folder.iterdir() if STEP_FOLDER.fullmatch(item.name))


def load_checkpoint(path: Path, parts: Trainable) -> dict[str, Any]:
    """Restore `parts` in place from a checkpoint folder and return its position.

    Raises:
        ValueError: the checkpoint is broken or belongs to another model; the message names the file.
    """
    state = read_json(path / "state.json")
    if state.get("format") != FORMAT:
        raise ValueError(f"{path} is a checkpoint of format {state.get('format')}; this version reads {FORMAT}")
    try:
        parts.model.load_state_dict(load_file(path / "model.safetensors"))
        tensors = load_file(path / "optimizer.safetensors")
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ValueError(f"checkpoint {path} cannot be loaded: {error}") from None
    _load_optimizer(parts.optimizer, tensors, state["optimizer"])
    parts.scaler.load_state_dict(state["scaler"])
    parts.metric_sums.copy_(tensors["metrics"])
    parts.randomness.states = {name: tensors[f"rng.{name}"] for name in parts.randomness.states}
    position = state["position"]
    assert isinstance(position, dict)
    return position


def _write(folder: Path, parts: Trainable, position: dict[str, Any]) -> None:
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in parts.model.state_dict().items()}, folder / "model.safetensors"
    )
    optimizer = parts.optimizer.state_dict()
    tensors = {name: value.detach().cpu().contiguous() for name, value in _optimizer_tensors(optimizer["state"])}
    tensors["metrics"] = parts.metric_sums.cpu()
    tensors |= {f"rng.{name}": state for name, state in parts.randomness.capture().items()}
    save_file(tensors, folder / "optimizer.safetensors")
    state = {
        "format": FORMAT,
        "position": position,
        "optimizer": optimizer["param_groups"],
        "scaler": parts.scaler.state_dict(),
    }
    write_json(folder / "state.json", state)


def _optimizer_tensors(state: dict[int, dict[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """Flatten optimizer state to `state.INDEX.NAME`; a parameter that has had no step yet has no entry."""
    for index, entries in state.items():
        for name, value in entries.items():
            if value is not None:
                assert isinstance(value, Tensor), name
                yield f"state.{index}.{name}", value


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("state."):
            _, index, name = key.split(".", 2)
            parameter = parameters[int(index)]
            if tensor.shape == parameter.shape:
                # fused steps walk parameter and state in memory order, so both must have the same strides
                tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
            state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})
