"""All seeds of one point of a sweep, as figures."""

from collections.abc import Mapping
from dataclasses import dataclass

from prunekd.reporting.results import Run
from prunekd.reporting.stats import Difference, Quartiles, Stat, difference
from prunekd.sweep.arms import Arm


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All seeds of one (arm, policy, keep). None: not measured, or there is nothing to compare with.

    kept_share is the share of the samples an epoch really saw. one_off maps a cost's name to the seconds such a run
    needs once; break_even_* is the number of runs, not rounded, in which those costs are saved again (inf: never, None:
    nothing to compare with or nothing to pay back).
    """

    arm: str
    settings: Arm
    policy: str
    keep: float
    runs: tuple[Run, ...]
    kept_share: float
    epochs: int
    ideal: float | None
    top1: Stat | None
    val_samples: int | None
    best_top1: Stat | None
    train_seconds: Stat
    train_seconds_median: float
    epoch_seconds: Quartiles
    one_off: Mapping[str, float]
    speedup_training: Stat | None
    speedup_total: Stat | None
    speedup_vs_plain: Stat | None
    speedup_vs_kd: Stat | None
    data_wait_share: Stat | None
    images_per_second: Stat | None
    read_amplification: Stat | None
    phases: Mapping[str, float]
    break_even_arm: float | None
    break_even_plain: float | None

    def top1_over(self, other: "Group") -> Difference | None:
        """How much more accurate this group is than another of its sweep; None if either was not measured."""
        if self.top1 is None or other.top1 is None:
            return None
        return difference(self.top1, other.top1, self.val_samples)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def extrapolated(self) -> bool:
        """True if the seconds were not measured to the end of the runs."""
        return any(run.extrapolated for run in self.runs)

    @property
    def total_seconds(self) -> float:
        """Mean training seconds plus one-off costs."""
        return self.train_seconds.mean + sum(self.one_off.values())
