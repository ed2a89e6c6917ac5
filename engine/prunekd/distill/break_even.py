"""When cached soft labels pay."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """Teacher passes over the kept samples: with a cache one per view, online one per epoch and run."""

    views: int
    epochs: int
    runs: int

    def __post_init__(self) -> None:
        for name in ("views", "epochs", "runs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    @property
    def online(self) -> int:
        """Teacher passes of an online teacher."""
        return self.epochs * self.runs

    @property
    def pays(self) -> bool:
        """True if the cache costs fewer passes."""
        return self.views < self.online

    @property
    def from_runs(self) -> int:
        """The least number of runs (students, seeds, settings on the same samples) from which on the cache pays."""
        return self.views // self.epochs + 1

    def __str__(self) -> str:
        counts = (
            f"{_count(self.views, 'view')} cost {_count(self.views, 'teacher pass', 'teacher passes')} over the "
            f"samples, an online teacher {_count(self.online, 'pass', 'passes')} in {_count(self.epochs, 'epoch')} x "
            f"{_count(self.runs, 'run')}"
        )
        if self.pays:
            return f"{counts}: the cache saves {self.online - self.views} of {self.online}"
        return f"{counts}: the cache does not pay; it would from {_count(self.from_runs, 'run')} on"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
