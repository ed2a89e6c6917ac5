"""The ledger: where the seconds and the bytes went.

Phases nest and book exclusive time: while an inner phase runs, the outer one's clock stands still. A program opens
`other` around everything it does, so its phases sum to its wall-clock and what nobody claimed shows as `other`.
What happened before there was a ledger, from the process's start on, is `imports`.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

PHASES = (
    "imports",
    "convert",
    "teacher",
    "score",
    "select",
    "labels",
    "compact",
    "setup",
    "compile",
    "data_wait",
    "step",
    "eval",
    "checkpoint",
    "other",
)


class Ledger:
    """Seconds by phase and counters (bytes, images).

    Time outside every phase is not booked: several ledgers can take turns in one process, each in turn also booking
    what it books in their common `parent`.
    """

    def __init__(self, parent: "Ledger | None" = None) -> None:
        self._parent = parent
        self.seconds: dict[str, float] = {}
        self.counters: dict[str, int] = {}
        self._open: list[str] = []
        self._since = 0.0

    def __repr__(self) -> str:
        phases = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.seconds.items())
        return f"Ledger({phases})"

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Book the time inside the `with` block, less that of phases opened within, to `name`, one of PHASES."""
        assert name in PHASES, name
        with self._parent.phase(name) if self._parent else nullcontext():
            self._book()
            self._open.append(name)
            try:
                yield
            finally:
                self._book()
                self._open.pop()

    def add(self, name: str, seconds: float) -> None:
        """Book seconds that passed outside every phase."""
        assert name in PHASES, name
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def count(self, name: str, amount: int) -> None:
        """Add `amount` to the counter `name`."""
        self.counters[name] = self.counters.get(name, 0) + int(amount)
        if self._parent:
            self._parent.count(name, amount)

    def get(self, *names: str) -> float:
        """Seconds booked so far to the phases `names` together, the running one up to now."""
        self._book()
        return sum(self.seconds.get(name, 0.0) for name in names)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: `seconds` by phase, their sum `wall_seconds`, `counters`."""
        self._book()
        return {
            "wall_seconds": sum(self.seconds.values()),
            "seconds": dict(self.seconds),
            "counters": dict(self.counters),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Add what `to_dict` gave in an earlier process, so that a resumed run books all its parts."""
        for name, seconds in saved["seconds"].items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for name, amount in saved["counters"].items():
            self.counters[name] = self.counters.get(name, 0) + int(amount)

    def _book(self) -> None:
        now = time.perf_counter()
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now


def process_age() -> float:
    """Seconds since the operating system started this process (Linux; to a hundredth of a second)."""
    # the fields after the name, which stands in brackets and may hold anything, begin with the third
    fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    started = int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def critical_path(ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by phase that the wall-clock of processes working together consists of, from those of each.

    Processes meet in every step, so whoever is late in another phase lets the others wait in theirs: each phase but
    `step` counts as long as its slowest process, `step` for what is left of the longest wall-clock. That bounds what
    the job would save if a phase cost nothing.
    """
    wall = max(sum(seconds.values()) for seconds in ranks)
    names = [name for name in PHASES if name != "step" and any(name in seconds for seconds in ranks)]
    slowest = {name: max(seconds.get(name, 0.0) for seconds in ranks) for name in names}
    return {**slowest, "step": max(0.0, wall - sum(slowest.values()))}
