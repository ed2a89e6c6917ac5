"""Teachers on disk, and what tells one from another."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from prunekd.models import ModelCard, create_model, load_trained
from prunekd.models.trained import load_weights, read_state, state_digest

TIMM = "timm:"
MODEL_FILE = "model.safetensors"


def load_teacher_model(spec: str) -> tuple[nn.Module, ModelCard]:
    """Load the model a teacher spec names, in float32 on the CPU, in eval mode.

    Args:
        spec: a run folder; a `.safetensors` file of ours; `ARCHITECTURE@WEIGHTS` for a foreign state dict
            (`.pth` or `.safetensors`); or `timm:NAME` for timm's pretrained weights.

    Raises:
        ValueError: nothing at that path, or weights that do not fit.
    """
    if spec.startswith(TIMM):
        return _pretrained(spec.removeprefix(TIMM))
    if "@" in spec and not Path(spec).exists():
        return _foreign(*spec.split("@", 1))
    path = Path(spec)
    if path.is_dir():
        if not (path / MODEL_FILE).exists():
            raise ValueError(f"{path} holds no {MODEL_FILE}: it is not a finished run; finish it with `--resume auto`")
        return load_trained(path / MODEL_FILE)
    if not path.exists():
        raise ValueError(
            f"teacher {spec!r} does not exist; give a run folder, a .safetensors file, "
            f"ARCHITECTURE@WEIGHTS or {TIMM}NAME"
        )
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} does not say which model it holds; give it as ARCHITECTURE@{path}")
    return load_trained(path)


def _pretrained(name: str) -> tuple[nn.Module, ModelCard]:
    import timm

    config = timm.get_pretrained_cfg(name) if timm.is_model(name.split(".")[0]) else None
    if config is None:
        create_model(name, 1)  # raises with the nearest names
        raise ValueError(f"timm has no pretrained weights for {name!r}")
    model = create_model(name, config.num_classes, pretrained=True)
    size = config.input_size[-1]
    card = ModelCard(
        model=name, num_classes=config.num_classes, mean=tuple(config.mean), std=tuple(config.std), size=size
    )
    return model.eval(), card


def _foreign(architecture: str, weights: str) -> tuple[nn.Module, ModelCard]:
    path = Path(weights)
    if not path.exists():
        raise ValueError(f"{path} does not exist (from {architecture}@{weights})")
    classes = _output_classes(path)
    model = create_model(architecture, classes, seed=0)
    load_weights(model, path)
    return model.eval(), ModelCard(model=architecture, num_classes=classes)


def _output_classes(path: Path) -> int:
    """Number of classes of a foreign state dict: the length of its last one-dimensional tensor, the head's bias."""
    vectors = [tensor for name, tensor in read_state(path).items() if tensor.ndim == 1 and name.endswith("bias")]
    if not vectors:
        raise ValueError(f"{path} holds no bias to tell the number of classes from")
    return len(vectors[-1])


def digest_of(model: nn.Module) -> str:
    """SHA-256 of a model's weights and buffers, in hexadecimal."""
    return state_digest(model.state_dict())


def common_card(cards: Sequence[ModelCard]) -> ModelCard:
    """The card of an ensemble: the first one's, with all their names; ValueError if they know different classes."""
    first = cards[0]
    for card in cards[1:]:
        same_names = card.classes == first.classes or not (card.classes and first.classes)
        if card.num_classes != first.num_classes or not same_names:
            raise ValueError(
                f"the teachers {first.model} ({first.num_classes} classes) and {card.model} ({card.num_classes}) were "
                "not trained on the same classes; an ensemble needs that"
            )
    return replace(
        first,
        model="+".join(card.model for card in cards),
        classes=next((card.classes for card in cards if card.classes), ()),
    )
