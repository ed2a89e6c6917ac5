"""Options and outputs that several verbs share."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from prunekd.common.ledger import Ledger

STORE = click.argument("store", type=click.Path(exists=True, file_okay=False, path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
WORKERS = click.option("--workers", type=click.IntRange(min=1), help="Decoding threads [default: one per core].")


def say(line: str) -> None:
    """Print one line about what is going on to stderr."""
    click.echo(line, err=True)


def emit(value: Any, as_json: bool, text: str) -> None:
    """Print a result to stdout, as JSON or as text."""
    click.echo(json.dumps(value, indent=2) if as_json else text)


@contextmanager
def booked_from(began: float) -> Iterator[Ledger]:
    """A ledger of everything since `began` (perf_counter): imports up to now, `other` for what nobody claims."""
    ledger = Ledger()
    ledger.add("imports", time.perf_counter() - began)
    with ledger.phase("other"):
        yield ledger


class Update(Protocol):
    """Moves a progress bar; `total` where it was not known before."""

    def __call__(self, done: int, text: str, total: int | None = None) -> None: ...


@contextmanager
def progress_bar(total: int | None, description: str) -> Iterator[Update]:
    """Yield `update(done, text)`: a live bar on a terminal, a plain line at every tenth otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_updates(total or 0, description)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("{task.fields[text]}"), console=console)
    task = bar.add_task(description, total=total, text="")

    def update(done: int, text: str, total: int | None = None) -> None:
        bar.start()  # with the first report, so that work without any shows no bar
        bar.update(task, completed=done, text=text, total=total)

    try:
        yield update
    finally:
        bar.stop()


def _plain_updates(total: int, description: str) -> Update:
    expected, shown = total, -1

    def update(done: int, text: str, total: int | None = None) -> None:
        nonlocal shown
        count = expected if total is None else total
        tenth = 10 * done // max(count, 1)
        if tenth > shown:
            shown = tenth
            print(f"{description}: {done}/{count} {text}", file=sys.stderr)

    return update


@contextmanager
def counting_bar(description: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `progress(done, total)`, a bar that counts."""
    with progress_bar(None, description) as update:
        yield lambda done, total: update(done, unit, total)


@contextmanager
def training_bar(description: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield `progress(values)`, which takes what a trainer reports."""
    with progress_bar(None, description) as update:
        yield lambda values: update(values["step"], training_text(values), values["total_steps"])


def training_text(values: dict[str, Any]) -> str:
    """The figures of a progress line from what a trainer reports."""
    parts = [f"epoch {values['epoch']}", f"loss {values['loss']:.3f}", f"top-1 {values['top1']:.1%}"]
    if "val_top1" in values:
        parts.append(f"val {values['val_top1']:.1%}")
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:.0f} img/s, {values['data_wait_share']:.0%} waiting")
    return "  ".join(parts)
