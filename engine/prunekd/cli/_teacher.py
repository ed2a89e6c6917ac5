"""Options of the verbs that run a teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

    from prunekd.distill import OnlineTeacher
    from prunekd.store import Store

Command = Callable[..., None]

TEACHER_HELP = "A run folder, a .safetensors file, ARCHITECTURE@WEIGHTS or timm:NAME; several with commas: their mean."


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherOptions:
    """--teacher-precision, --teacher-size and --teacher-compile."""

    precision: str
    size: str | None
    compile: str

    def open(self, spec: str, store: "Store | Path", device: "torch.device") -> "OnlineTeacher":
        """Open the teacher `spec` names as the options say."""
        from prunekd.api.teachers import open_teacher

        return open_teacher(spec, store, precision=self.precision, size=self.size, compile=self.compile, device=device)


def teacher_options(precision: str) -> Callable[[Command], Command]:
    """Add the options of TeacherOptions (--teacher-precision with this default); the command gets `teacher_options`."""

    def decorate(command: Command) -> Command:
        @click.option(
            "--teacher-precision",
            type=click.Choice(["bf16", "fp16", "fp32", "auto"]),
            default=precision,
            show_default=True,
            help="Precision of the frozen teacher; auto measures which is fastest.",
        )
        @click.option(
            "--teacher-size",
            metavar="own|PIXELS",
            help="Resize the views for the teacher [default: as they are].",
        )
        @click.option(
            "--teacher-compile",
            type=click.Choice(["auto", "on", "off"]),
            default="auto",
            show_default=True,
            help="Run the frozen teacher through torch.compile; auto where that pays.",
        )
        @wraps(command)
        def gather(
            *args: Any, teacher_precision: str, teacher_size: str | None, teacher_compile: str, **rest: Any
        ) -> None:
            options = TeacherOptions(precision=teacher_precision, size=teacher_size, compile=teacher_compile)
            command(*args, teacher_options=options, **rest)

        return gather

    return decorate
