"""Teachers from what people hold: a spec on the command line or in a file, or a module of their own."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from prunekd.distill.teacher import OnlineTeacher, TeacherSettings
from prunekd.distill.teacher_files import load_teacher_model
from prunekd.models import ModelCard, check_logits

# dtype of weights and activations by the name on the command line; auto measures which is fastest
PRECISIONS: dict[str, torch.dtype | None] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "auto": None,
}


def open_teacher(spec: str, classes: tuple[str, ...], settings: TeacherSettings) -> OnlineTeacher:
    """Load, freeze and check a teacher for a store with these `classes`.

    Args:
        spec: see `load_teacher_model`; several with commas between them make an ensemble.
    """
    specs = [spec] if Path(spec).exists() else spec.split(",")
    (model, card), *others = [load_teacher_model(part.strip()) for part in specs]
    teacher = OnlineTeacher(model, card, settings, others, spec=spec)
    teacher.check_fits(classes)
    return teacher


def wrap_module(
    module: nn.Module,
    settings: TeacherSettings,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str],
    size: int,
) -> OnlineTeacher:
    """A frozen copy of `module` as a teacher; the module itself stays as it is.

    Args:
        module: logits (B, C) for normalized images float32 (B, 3, H, W).
        mean, std: normalization of its input in [0, 1] pixel units, three numbers each.
        classes: names in the order of its logits.
        size: side in pixels of images that it takes.

    Raises:
        ValueError: mean or std are not three numbers, or the module does not give one logit per class for such images.
    """
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"mean and std are {mean} and {std}; they must be three numbers each, std positive")
    card = ModelCard(
        model=type(module).__name__,
        num_classes=len(classes),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        size=size,
        classes=tuple(classes),
    )
    check_logits(module, len(classes), size, "the teacher")
    return OnlineTeacher(module, card, settings)


def as_teacher(
    teacher: OnlineTeacher | nn.Module | str | Path,
    classes: tuple[str, ...],
    *,
    precision: str = "bf16",
    size: int | str | None = None,
    compile: str = "auto",
    device: torch.device,
) -> OnlineTeacher:
    """A teacher for a store with these `classes` from a spec or path; an open teacher is checked and returned.

    Args:
        precision: a key of PRECISIONS.
        size, compile, device: see TeacherSettings.

    Raises:
        ValueError: the teacher cannot be found, does not fit, is on another device, or is a module, of which more must
            be known.
    """
    if isinstance(teacher, OnlineTeacher):
        teacher.check_fits(classes)
        mine = teacher.settings.device
        if mine.type != device.type or (mine.index or 0) != (device.index or 0):
            raise ValueError(f"the teacher is on {mine}, the work on {device}; open the teacher with device={device}")
        return teacher
    if isinstance(teacher, nn.Module):
        raise ValueError(
            f"the teacher is a module ({type(teacher).__name__}), which does not say how its images are normalized nor "
            "which classes it knows; open it first: prunekd.open_teacher(module, store, mean=..., std=..., classes=...)"
        )
    return open_teacher(str(teacher), classes, teacher_settings(precision, size, compile, device))


def teacher_settings(precision: str, size: int | str | None, compile: str, device: torch.device) -> TeacherSettings:
    """TeacherSettings from the words that the command line and study files use; ValueError for an unknown precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"the teacher's precision is {precision!r}; it must be {', '.join(PRECISIONS)}")
    if isinstance(size, str) and size.isdigit():
        size = int(size)
    return TeacherSettings(dtype=PRECISIONS[precision], channels_last=None, size=size, compile=compile, device=device)
