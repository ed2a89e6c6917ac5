"""The ledger: where the seconds and the bytes went.

Phases nest and book exclusive time: while an inner phase runs, the outer one's clock stands still, so the
phases of a process sum to its wall-clock, with what nobody claimed booked as `other`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PHASES = (
    "convert",
    "teacher",
    "score",
    "select",
    "labels",
    "setup",
    "data_wait",
    "step",
    "eval",
    "checkpoint",
    "other",
)


class Ledger:
    """Seconds by phase and counters (bytes, images) of one process.

    A restored ledger goes on counting where the saved one stopped, so a run that was interrupted and resumed
    books both parts.
    """

    def __init__(self, saved: dict[str, Any] | None = None) -> None:
        saved = saved or {}
        self.seconds: dict[str, float] = dict(saved.get("seconds", {}))
        self.counters: dict[str, int] = dict(saved.get("counters", {}))
        self.seconds.pop("other", None)
        self._wall_before = float(saved.get("wall_seconds", 0.0))
        self._started = time.perf_counter()
        self._open: list[list[Any]] = []  # [name, running since]

    def __repr__(self) -> str:
        phases = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.seconds.items())
        return f"Ledger({phases}; wall {self.wall_seconds:.2f} s)"

    @property
    def wall_seconds(self) -> float:
        """Seconds since the ledger was opened, with those of the run it continues."""
        return self._wall_before + time.perf_counter() - self._started

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Book the time inside the `with` block to `name`, one of PHASES."""
        assert name in PHASES, name
        now = time.perf_counter()
        if self._open:
            outer = self._open[-1]
            self._book(outer[0], now - outer[1])
        self._open.append([name, now])
        try:
            yield
        finally:
            now = time.perf_counter()
            _, since = self._open.pop()
            self._book(name, now - since)
            if self._open:
                self._open[-1][1] = now

    def count(self, name: str, amount: int) -> None:
        """Add `amount` to the counter `name`."""
        self.counters[name] = self.counters.get(name, 0) + int(amount)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: `seconds` by phase (summing to `wall_seconds`), `counters`, `wall_seconds`."""
        wall = self.wall_seconds
        seconds = dict(self.seconds)
        seconds["other"] = max(0.0, wall - sum(seconds.values()))
        return {"wall_seconds": wall, "seconds": seconds, "counters": dict(self.counters)}

    def _book(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
