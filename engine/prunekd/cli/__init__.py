"""The command line: one file per verb, loaded only when it is called.

Exit codes: 0, 1 for a run that failed, 2 for bad usage, 130 after Ctrl-C. Errors go to stderr in one line; `--debug`
shows the traceback.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import (
    EACCES,
    EDQUOT,
    EEXIST,
    EIO,
    EISDIR,
    ELOOP,
    EMFILE,
    ENAMETOOLONG,
    ENOENT,
    ENOSPC,
    ENOTCONN,
    ENOTDIR,
    EPERM,
    EROFS,
    ESTALE,
)
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from prunekd import __version__
from prunekd.common.ledger import process_age

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
VERBS = {
    "convert": "Convert an image dataset into a store.",
    "score": "Score every sample of a store with a teacher.",
    "select": "Choose the samples to keep.",
    "compact": "Copy the kept samples into a store of their own, in rank order.",
    "export": "Hand the kept samples to other tools: lists, folders, records for DALI.",
    "compare": "Lay subsets side by side.",
    "labels": "Compute a teacher's soft labels once, for runs without the teacher.",
    "train": "Train a student, with or without a teacher.",
    "bench": "Train a grid of keep ratios and arms, timed.",
    "report": "Make the report of a sweep.",
    "inspect": "Show what a store, scores, subset or run holds.",
    "doctor": "List what is installed and what is missing.",
    "demo": "Run the whole pipeline on handwritten digits.",
}


class Verbs(click.Group):
    """A group whose commands are imported when asked for, so that `--help` does not load torch."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:
        """Run the command line `args`, the process's own without; verbs get the moment it began as `ctx.obj`.

        That moment, on the clock of time.perf_counter, is the process's start if this is what the process is for.
        """
        age = process_age() if args is None else 0.0
        if args is None:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, TextIOWrapper):
                    stream.reconfigure(errors="replace")  # a terminal in ASCII shows ? for what it cannot show
        return super().main(args, *rest, obj=time.perf_counter() - age, **more)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command = import_module(f"prunekd.cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb; turn the errors a user can mend into one line and an exit code."""
        if ctx.params.get("debug"):
            with _log_on_stderr():
                return super().invoke(ctx)
        try:
            with _log_on_stderr():
                return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):
            raise  # click's own signals, which are RuntimeErrors too
        except ValueError as error:
            raise _Failure(str(error), 2) from error
        except (OSError, RuntimeError) as error:
            raise _Failure(_told(error), 1) from error
        except KeyboardInterrupt as error:
            raise _Failure(str(error) or "interrupted", INTERRUPTED) from None


_REMEDIES = {
    EACCES: "change its permissions, or run as a user who has them",
    EPERM: "change its permissions, or run as a user who has them",
    EROFS: "choose a folder on storage that can be written to",
    ENOENT: "check the path",
    ENOTDIR: "a part of the path is a file; check the path",
    EISDIR: "it is a folder; name a file",
    EEXIST: "choose another name",
    ELOOP: "it is a link to itself; remove it",
    ENAMETOOLONG: "choose a shorter name",
    ENOSPC: "make room, or choose another disk",
    EDQUOT: "the quota is used up: make room, or choose another disk",
    EIO: "the storage failed: see the system's log (dmesg)",
    ESTALE: "the storage went away: mount it again",
    ENOTCONN: "the storage went away: mount it again",
    EMFILE: "raise the limit of open files (ulimit -n)",
}


def _told(error: Exception) -> str:
    """An error in words: of the system's errors the file, what is wrong with it, and what to do."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error) or type(error).__name__
    files = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    remedy = _REMEDIES.get(error.errno, "--debug shows where it arose")
    return f"{files or 'a file'}: {error.strerror or error}; {remedy}"


class _Lines(logging.Handler):
    """Writes each message as one line to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # a closed pipe or a full disk ends no training
            click.echo(record.getMessage(), err=True)


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Show what the logger `prunekd` is told, on the first process of several alone; once, if verbs call verbs."""
    logger, lines = logging.getLogger("prunekd"), _Lines(logging.INFO)
    if os.environ.get("RANK", "0") != "0" or any(isinstance(handler, _Lines) for handler in logger.handlers):
        yield
        return
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(before)


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it off the instance

    def show(self, file: object = None) -> None:
        with suppress(OSError, ValueError):
            message = "; ".join(line.strip() for line in self.message.splitlines() if line.strip())
            click.echo(f"prunekd: error: {message}", file=sys.stderr)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="prunekd")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Knowledge distillation on pruned image datasets.

    \b
    convert -> score -> select -> train -> report, or bench for a whole grid.
    """
