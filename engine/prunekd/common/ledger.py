"""The ledger: where the seconds and the bytes went.

Phases nest and book exclusive time: while an inner phase runs, the outer one's clock stands still. A program opens
`other` around everything it does, so its phases sum to its wall-clock and what nobody claimed shows as `other`.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
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

    Time outside every phase is not booked: several ledgers can take turns in one process.
    """

    def __init__(self) -> None:
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
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def count(self, name: str, amount: int) -> None:
        """Add `amount` to the counter `name`."""
        self.counters[name] = self.counters.get(name, 0) + int(amount)

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
            self.count(name, amount)

    def _book(self) -> None:
        now = time.perf_counter()
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now
