"""Options of the verbs that run a teacher."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from prunekd.cli._shared import say

F = TypeVar("F", bound=Callable[..., Any])

TEACHER_HELP = "A run folder, a .safetensors file, ARCHITECTURE@WEIGHTS or timm:NAME; several with commas: their mean."


def teacher_options(precision: str) -> Callable[[F], F]:
    """Options --teacher-precision (with this default), --teacher-size and --teacher-compile."""

    def decorate(command: F) -> F:
        for option in (
            click.option(
                "--teacher-compile",
                type=click.Choice(["auto", "on", "off"]),
                default="auto",
                show_default=True,
                help="Run the frozen teacher through torch.compile; auto where that pays.",
            ),
            click.option(
                "--teacher-size",
                metavar="own|PIXELS",
                help="Resize the views for the teacher [default: as they are].",
            ),
            click.option(
                "--teacher-precision",
                type=click.Choice(["bf16", "fp16", "fp32", "auto"]),
                default=precision,
                show_default=True,
                help="Precision of the frozen teacher; auto measures which is fastest.",
            ),
        ):
            command = option(command)
        return command

    return decorate


def open_teacher_with(
    options: Mapping[str, Any], spec: str | None, classes: tuple[str, ...], device: Any
) -> tuple[Any, Any]:
    """Open the teacher `spec` names as the options of `teacher_options` say, and describe it; (None, None) without."""
    if spec is None:
        return None, None
    from prunekd.distill import TeacherSettings, describe_teacher, open_teacher
    from prunekd.training.evaluate import DTYPES

    size = options["teacher_size"]
    settings = TeacherSettings(
        dtype=DTYPES.get(options["teacher_precision"]),
        channels_last=None,
        size=int(size) if size is not None and size.isdigit() else size,
        compile=options["teacher_compile"],
        device=device,
    )
    teacher = open_teacher(spec, classes, settings)
    say(f"teacher: {teacher!r}")
    return teacher, describe_teacher(spec, teacher)
