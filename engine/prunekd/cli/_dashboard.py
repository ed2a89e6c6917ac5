"""The view of a running sweep: a live table on a terminal, a line now and then elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prunekd.cli._shared import counting_bar, say
from prunekd.reporting.wording import plural, series_title
from prunekd.sweep.progress import RunState, SweepProgress

MARGIN = 7  # lines of the terminal that are not rows of the table


class SweepView:
    """Shows a sweep: a bar while the teacher goes over the store (`passes`), then the table of runs (`watch`)."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._shown = ExitStack()
        self._bar: tuple[str, Callable[[int, int], None]] | None = None
        self._show: Callable[[RunState], None] = lambda state: None

    def __enter__(self) -> "SweepView":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()

    def passes(self, name: str, done: int, total: int) -> None:
        """Show how far the pass `name` is."""
        if self._bar is None or self._bar[0] != name:
            self._shown.close()
            unit = "samples" if name == "score" else "records"
            self._bar = (name, self._shown.enter_context(counting_bar(name, unit)))
        self._bar[1](done, total)

    def watch(self, progress: SweepProgress, state: RunState | None) -> None:
        """Show the runs; without a state, begin to."""
        if state is None:
            self._shown.close()
            self._show = self._shown.enter_context(dashboard(progress, self._title))
        else:
            self._show(state)


@contextmanager
def dashboard(progress: SweepProgress, title: str) -> Iterator[Callable[[RunState], None]]:
    """Yield what is to be called with a run's state after each of its reports."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain(progress, title)
        return
    # drawing takes milliseconds of the processor that the sweep is timed on: once a second is enough
    live = Live(console=console, get_renderable=lambda: render(progress, title, console), refresh_per_second=1)
    try:
        with suppress(OSError, ValueError):  # the terminal may go away: that ends no sweep
            live.start()
        yield lambda state: None
    finally:
        with suppress(OSError, ValueError):
            live.stop()


def render(progress: SweepProgress, title: str, console: Console) -> RenderableType:
    """The table of the seed at hand and a line for the whole; rows that do not fit give way, finished ones first."""
    current = progress.states.get(progress.current or "")
    seed = current.run.seed if current else min(state.run.seed for state in progress.states.values())
    rows = [state for state in progress.states.values() if state.run.seed == seed]
    fitting = max(3, console.height - MARGIN)
    if len(rows) > fitting:
        rows = sorted(rows, key=lambda state: state.finished)[:fitting]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", width=1)
    table.add_column("arm", no_wrap=True)
    for name in ("keep", "done", "epoch", "top-1", "val", "images/s", "waiting"):
        table.add_column(name, justify="right", no_wrap=True)
    for state in rows:
        table.add_row(*_cells(state, state is current))
    whole = ProgressBar(total=1.0, completed=progress.share, width=60)
    return Group(table, Text(), Text(f"{title}, seed {seed}: {status(progress)}", style="bold"), whole)


def _cells(state: RunState, current: bool) -> list[RenderableType]:
    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.1%}"

    style = "green" if state.finished else "" if state.begun else "dim"
    return [
        Text(">" if current else "", style="bold"),
        Text(series_title(state.run.arm, state.run.policy), style=style),
        f"{state.run.keep:g}",
        ProgressBar(total=1.0, completed=state.share, width=18),
        f"{state.epoch}/{state.epochs}" if state.begun else "",
        percent(state.top1),
        percent(state.val_top1),
        "" if state.images_per_second is None else f"{state.images_per_second:,.0f}",
        percent(state.data_wait_share),
    ]


def status(progress: SweepProgress) -> str:
    """`41 %, 3 of 12 runs finished, about 2 min left`."""
    left = progress.seconds_left
    return (
        f"{progress.share:.0%}, {progress.finished} of {plural(len(progress.states), 'run')} finished"
        f"{'' if left is None else f', about {duration(left)} left'}"
    )


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _plain(progress: SweepProgress, title: str) -> Callable[[RunState], None]:
    """A line for every twentieth of the sweep and for each finished run."""
    shown = -1

    def update(state: RunState) -> None:
        nonlocal shown
        part = int(20 * progress.share)
        if part <= shown and not state.finished:
            return
        shown = max(shown, part)
        run = state.run
        reached = "" if state.val_top1 is None else f", val {state.val_top1:.1%}"
        speed = "" if state.images_per_second is None else f", {state.images_per_second:,.0f} images/s"
        say(f"{title}: {status(progress)}; {run.name} epoch {state.epoch}/{state.epochs}{reached}{speed}")

    return update
