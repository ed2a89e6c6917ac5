"""Options and outputs that several verbs share."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from prunekd.common.ledger import Ledger

STORE = click.argument("store", type=click.Path(path_type=Path))  # open_store says what is wrong with it
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
WORKERS = click.option("--workers", type=click.IntRange(min=1), help="Decoding threads [default: one per core].")


def say(line: str) -> None:
    """Print one line about what is going on to stderr; work does not end because nobody can read of it."""
    with suppress(OSError, ValueError):  # a closed pipe, a full disk; a closed file
        click.echo(line, err=True)


def emit(value: object, as_json: bool, text: str | Callable[[], str]) -> None:
    """Print a result to stdout, as JSON or as text; a function makes the text only where it is wanted.

    Raises:
        OSError: stdout is full, or its reader is gone; what the verb did is done all the same.
    """
    shown = json.dumps(value, indent=2) if as_json else text if isinstance(text, str) else text()
    try:
        click.echo(shown)
    except OSError as error:
        _forget_stdout()
        raise OSError(f"the verb is done, but its result could not be written to stdout ({error.strerror})") from None


def _forget_stdout() -> None:
    """Let go of what stdout still holds, or Python tries to write it once more at its end and fails there."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextmanager
def booked_from(began: float) -> Iterator[Ledger]:
    """A ledger of everything since `began` (perf_counter): imports up to now, `other` for what nobody claims."""
    ledger = Ledger()
    ledger.add("imports", time.perf_counter() - began)
    with ledger.phase("other"):
        yield ledger


class Update(Protocol):
    """Moves a progress bar."""

    def __call__(self, done: int, text: str, total: int | None = None, description: str | None = None) -> None:
        """Show `done` and `text`; a `total` where it was not known before, a new `description` to begin another bar."""


@contextmanager
def progress_bar(total: int | None, description: str) -> Iterator[Update]:
    """Yield a function that shows progress: a live bar on a terminal, a plain line at every tenth otherwise.

    Nothing is shown before the first update, which gives the `total` where it is None here.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_updates(total, description)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("{task.fields[text]}"), console=console)
    tasks = {} if total is None else {description: bar.add_task(description, total=total, text="")}
    shown = description

    def update(done: int, text: str, total: int | None = None, description: str | None = None) -> None:
        nonlocal shown
        shown = description or shown
        with suppress(OSError, ValueError):  # the terminal is gone
            bar.start()
            if shown not in tasks:
                tasks[shown] = bar.add_task(shown, total=total, text="")
            bar.update(tasks[shown], completed=done, total=total, text=text)

    try:
        yield update
    finally:
        with suppress(OSError, ValueError):
            bar.stop()


def _plain_updates(total: int | None, description: str) -> Update:
    known, name, shown = total, description, -1

    def update(done: int, text: str, total: int | None = None, description: str | None = None) -> None:
        nonlocal known, name, shown
        known = known if total is None else total
        if description is not None and description != name:
            name, shown = description, -1
        tenth = 10 * done // max(known or 0, 1)
        if tenth > shown:
            shown = tenth
            say(f"{name}: {done}/{known} {text}")

    return update


class Speed:
    """How fast a job goes, not counting what an interrupted one had done before: its first figure."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._before: int | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the job began."""
        return time.perf_counter() - self._began

    def per_second(self, done: int) -> float:
        """What was done per second, given how much is `done` in all."""
        self._before = done if self._before is None else self._before
        return (done - self._before) / self.seconds


@contextmanager
def counting_bar(description: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `progress(done, total)`, a bar that counts."""
    with progress_bar(None, description) as update:
        yield lambda done, total: update(done, unit, total)


@contextmanager
def training_bar(description: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield `progress(values)`, a bar that takes what a trainer reports."""
    with progress_bar(None, description) as update:
        yield lambda values: update(values["step"], training_text(values), values["total_steps"])


def training_text(values: Mapping[str, float]) -> str:
    """The figures of a progress line from what a trainer reports."""
    parts = [f"epoch {values['epoch']}", f"loss {values['loss']:.3f}", f"top-1 {values['top1']:.1%}"]
    if "val_top1" in values:
        parts.append(f"val {values['val_top1']:.1%}")
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:.0f} img/s, {values['data_wait_share']:.0%} waiting")
    return "  ".join(parts)
