"""Teachers from what people hold: a spec on the command line or in a file, or a module of their own."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from prunekd.distill.teacher import OnlineTeacher, TeacherSettings
from prunekd.distill.teacher_files import load_teacher_model
from prunekd.models import ModelCard, check_logits


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
