"""Checkpoints: safetensors and JSON in one folder that appears whole by a rename.

`step-00000042/` holds model.safetensors, optimizer.safetensors, state.safetensors (whatever else has tensors: the
average, metric sums, generators, figures of single samples) and state.json (position, param groups, scaler). Nothing is
pickled.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from prunekd.common.files import Kind, read_json, require_keys, sync_file, sync_folder, write_json

STEP_FOLDER = re.compile(r"step-(\d{8})")
FORMAT = 2
STATE: dict[str, Kind] = {"format": int, "position": dict, "optimizer": list, "scaler": dict}
POSITION: dict[str, Kind] = {
    "epoch": int, "step_in_epoch": int, "global_step": int, "epochs": list, "at_epoch_start": dict, "ledger": dict,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trainable:
    """What changes while training and knows its own state: restored in place by `load_checkpoint`."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


def save_checkpoint(
    folder: Path, step: int, parts: Trainable, tensors: dict[str, Tensor], position: dict[str, Any], keep_last: int
) -> Path:
    """Write checkpoint `step` under `folder`, then remove all but the newest `keep_last`.

    Args:
        tensors: further state, by name.
        position: further state as plain values.

    Raises:
        OSError: the disk is full or not writable; older checkpoints are untouched and the message says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        _write(temporary, parts, tensors, position)
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


def load_checkpoint(path: Path, parts: Trainable) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Restore `parts` in place from a checkpoint folder and return the further `tensors` and the `position`.

    Raises:
        ValueError: the checkpoint is broken or belongs to another model; the message names the file.
    """
    try:
        state = read_json(path / "state.json", STATE)
        if state["format"] != FORMAT:
            raise ValueError(f"it is of format {state['format']}, this version reads {FORMAT}")
        position: dict[str, Any] = state["position"]
        require_keys(position, POSITION, str(path / "state.json"))
        require_keys(position["ledger"], {"seconds": dict, "counters": dict}, f"the ledger in {path / 'state.json'}")
        _check_digests(path, state)
        weights, moments, tensors = (load_file(path / f"{n}.safetensors") for n in ("model", "optimizer", "state"))
        parts.model.load_state_dict(weights)
        _load_optimizer(parts.optimizer, moments, state["optimizer"])
        parts.scaler.load_state_dict(state["scaler"])
    except (SafetensorError, RuntimeError, OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"checkpoint {path} cannot be loaded: {error}") from None
    return tensors, position


def _check_digests(path: Path, state: Mapping[str, Any]) -> None:
    """Raise ValueError unless the files, and `state` itself, are as they were written; 0.1.0 wrote no digests."""
    if "digests" not in state:
        return
    require_keys(state, {"digests": dict}, str(path / "state.json"))
    found = _digests(path, state)
    changed = [name for name, digest in found.items() if state["digests"].get(name) != digest]
    if changed:
        raise ValueError(f"{' and '.join(changed)} changed since it was written")


def _digests(folder: Path, state: Mapping[str, Any]) -> dict[str, str]:
    """BLAKE2b of each file of a checkpoint, that of state.json without its digests."""
    own = json.dumps({name: value for name, value in state.items() if name != "digests"}, sort_keys=True)
    found = {"state.json": hashlib.blake2b(own.encode(), digest_size=16).hexdigest()}
    for file in sorted(folder.glob("*.safetensors")):
        digest = hashlib.blake2b(digest_size=16)
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
        found[file.name] = digest.hexdigest()
    return found


def _write(folder: Path, parts: Trainable, tensors: dict[str, Tensor], position: dict[str, Any]) -> None:
    optimizer = parts.optimizer.state_dict()
    _save(parts.model.state_dict(), folder / "model.safetensors")
    _save(dict(_optimizer_tensors(optimizer["state"])), folder / "optimizer.safetensors")
    _save(tensors, folder / "state.safetensors")
    groups = [{key: _plain(value) for key, value in group.items()} for group in optimizer["param_groups"]]
    state: dict[str, Any] = {
        "format": FORMAT,
        "position": position,
        "optimizer": groups,
        "scaler": parts.scaler.state_dict(),
    }
    write_json(folder / "state.json", state | {"digests": _digests(folder, state)})


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    # clones, since safetensors refuses tensors that share memory
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def _plain(value: Any) -> Any:
    """A param group's value for JSON; LAMB counts its steps in a tensor."""
    return {"tensor": value.item()} if isinstance(value, Tensor) else value


def _from_plain(value: Any) -> Any:
    return torch.tensor(value["tensor"]) if isinstance(value, dict) else value


def _optimizer_tensors(state: dict[int, dict[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """Flatten optimizer state to `INDEX.NAME`; a parameter that has had no step yet has no entry."""
    for index, entries in state.items():
        for name, value in entries.items():
            if value is not None:
                assert isinstance(value, Tensor), name
                yield f"{index}.{name}", value


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # fused steps walk parameter and state in memory order, so both must have the same strides
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    plain = [{key: _from_plain(value) for key, value in group.items()} for group in groups]
    optimizer.load_state_dict({"state": state, "param_groups": plain})
