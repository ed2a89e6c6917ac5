"""A trained model on disk: one safetensors file that says what it is.

The file's metadata holds the card (architecture, classes, normalisation, input size), so the weights can be loaded
without a second file or a guess. A digest beside it tells damaged weights.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from prunekd.common.files import Kind, replacing, require_keys
from prunekd.common.pixels import IMAGENET_MEAN, IMAGENET_STD
from prunekd.models.factory import create_model
from prunekd.models.own import OWN

logger = logging.getLogger(__name__)

CARD_KEY = "prunekd"
DIGEST_KEY = "prunekd.digest"
CARD: dict[str, Kind] = {
    "model": str, "num_classes": int, "mean": list, "std": list, "size": int, "classes": list,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a set of weights is.

    mean and std are in units of [0, 1] pixel values; size is the side of the square input in pixels; classes are
    the names in label order, empty if they are not known (weights of foreign origin).
    """

    model: str
    num_classes: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: int = 224
    classes: tuple[str, ...] = ()


def save_trained(path: str | Path, model: nn.Module, card: ModelCard) -> None:
    """Write the model's weights, its card and a digest to one safetensors file, whole or not at all."""
    # clones, since safetensors refuses tensors that share memory
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    metadata = {CARD_KEY: json.dumps(asdict(card)), DIGEST_KEY: state_digest(tensors)}
    with replacing(Path(path)) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the names, types, shapes and values of a state dict, in hexadecimal."""
    sha = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        values = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def read_card(path: str | Path) -> ModelCard:
    """Read the card of a safetensors file written by `save_trained`.

    Raises:
        ValueError: not a safetensors file, or one without a card.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a safetensors file: {error}") from None
    if CARD_KEY not in metadata:
        raise ValueError(f"{path} has no model card; give it as ARCHITECTURE@{path} to say which model it holds")
    try:
        fields: dict[str, Any] = json.loads(metadata[CARD_KEY])
        require_keys(fields, CARD, f"the model card of {path}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return ModelCard(**values)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} has a model card that cannot be read ({error}); train the model again") from None


def load_trained(path: str | Path) -> tuple[nn.Module, ModelCard]:
    """Load a model written by `save_trained`, in float32 on the CPU, in eval mode.

    Raises:
        ValueError: the file is missing, broken or does not fit the architecture its card names.
    """
    card = read_card(path)
    if card.model.startswith(OWN):
        raise ValueError(
            f"{path} holds weights of {card.model.removeprefix(OWN)}, a module that prunekd cannot build; build it "
            "yourself, load the weights with prunekd.Run.open(RUN).load_model(module), and as a teacher give "
            "prunekd.open_teacher(module, store, mean=..., std=..., classes=...)"
        )
    model = create_model(card.model, card.num_classes, seed=0, size=card.size)
    load_weights(model, path)
    return model.eval(), card


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load the weights in `path` (see `read_state`) into `model`.

    Raises:
        ValueError: the weights do not fit the model; the message gives the first differences.
    """
    state = read_state(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise ValueError(f"the weights in {path} do not fit {type(model).__name__}: {' '.join(lines)}") from None


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict from `.safetensors`, or from `.pt`/`.pth` without unpickling code.

    A state dict under the key `state_dict`, `model` or `state_dict_ema` is found, and a `module.` prefix removed.

    Raises:
        ValueError: no state dict, or weights that are not what `save_trained` wrote.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = file.metadata() or {}
        if DIGEST_KEY in metadata and metadata[DIGEST_KEY] != state_digest(state):
            raise ValueError(f"{path} is damaged: its weights are not what its digest says; train the model again")
        if CARD_KEY in metadata and DIGEST_KEY not in metadata:
            logger.debug(f"{path} has no digest: prunekd 0.1.0 wrote it, and damage to it may go unnoticed")
        return state
    loaded: object = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise ValueError(f"expected a state dict, found {type(loaded).__name__}")
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}
