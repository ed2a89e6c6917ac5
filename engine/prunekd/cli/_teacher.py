"""Options of the verbs that run a teacher."""

from collections.abc import Callable
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., None])

TEACHER_HELP = "A run folder, a .safetensors file, ARCHITECTURE@WEIGHTS or timm:NAME; several with commas: their mean."


def teacher_options(precision: str) -> Callable[[Command], Command]:
    """Add --teacher-precision (with this default), --teacher-size and --teacher-compile."""

    def decorate(command: Command) -> Command:
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
