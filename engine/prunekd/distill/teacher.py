"""The teacher: frozen, folded, in 16 bit, channels-last, and never in train mode."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunekd.common.pixels import to_input
from prunekd.distill.fold import fold_batch_norm
from prunekd.models import ModelCard, create_model, load_trained
from prunekd.models.trained import load_weights, read_state

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSettings:
    """How a teacher is run: `dtype` of weights and activations, `fold` batch norm, the `device`."""

    dtype: torch.dtype = torch.bfloat16
    fold: bool = True
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class OnlineTeacher:
    """A frozen network that gives logits for the views a student sees.

    It is no `nn.Module`, so nothing that walks the student's modules (train(), DDP, an optimizer) can reach it.
    Batch norm is folded in float32 before the weights are cast; `notes` says what was done.
    """

    def __init__(self, model: nn.Module, card: ModelCard, settings: TeacherSettings) -> None:
        model = model.eval().requires_grad_(False)
        self.card = card
        self.settings = settings
        self.digest = digest_of(model)
        self.notes: list[str] = []
        if settings.fold:
            example = torch.randn(2, 3, card.size, card.size, generator=torch.Generator().manual_seed(0))
            model, folded = fold_batch_norm(model, example)
            self.notes.append(f"{folded} batch norms folded")
        model = model.to(settings.device, settings.dtype).to(memory_format=torch.channels_last)
        self.notes.append(f"{str(settings.dtype).removeprefix('torch.')}, channels-last")
        self._model = model.requires_grad_(False)

    def __repr__(self) -> str:
        return f"OnlineTeacher({self.card.model}, {self.card.num_classes} classes, {', '.join(self.notes)})"

    @property
    def num_classes(self) -> int:
        """Size of the logits' last dimension."""
        return self.card.num_classes

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, H, W), channels-last -> logits (B, C) in the teacher's dtype."""
        return self.from_normalized(to_input(images, self.card.mean, self.card.std, self.settings.dtype))

    @torch.no_grad()
    def from_normalized(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) already normalised with the card's mean and std -> logits (B, C)."""
        return self._model(images.to(self.settings.dtype))

    def check_fits(self, classes: tuple[str, ...]) -> None:
        """Raise ValueError unless the teacher's classes are the store's, in the same order."""
        if self.num_classes != len(classes):
            raise ValueError(
                f"the teacher {self.card.model} has {self.num_classes} classes and the store has {len(classes)}; "
                "use a teacher trained on these classes"
            )
        for label, (mine, theirs) in enumerate(zip(self.card.classes, classes, strict=False)):
            if mine != theirs:
                raise ValueError(
                    f"class {label} is {mine!r} for the teacher and {theirs!r} in the store; "
                    "its soft labels would belong to other classes"
                )


def open_teacher(spec: str, classes: tuple[str, ...], settings: TeacherSettings) -> OnlineTeacher:
    """Load, freeze and check a teacher for a store with these `classes`; see `load_teacher_model` for `spec`."""
    model, card = load_teacher_model(spec)
    teacher = OnlineTeacher(model, card, settings)
    teacher.check_fits(classes)
    return teacher


def digest_of(model: nn.Module) -> str:
    """SHA-256 of a model's weights and buffers, in hexadecimal."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def describe_teacher(spec: str, teacher: OnlineTeacher) -> dict[str, Any]:
    """What a score file or a run keeps about its teacher."""
    return {
        "spec": spec,
        "model": teacher.card.model,
        "size": teacher.card.size,
        "digest": teacher.digest,
        "dtype": str(teacher.settings.dtype).removeprefix("torch."),
    }
