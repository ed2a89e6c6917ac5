"""Means, spreads and quartiles of a few values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

UNDECIDED = "not decided"  # a difference within its noise


@dataclass(frozen=True, slots=True)
class Stat:
    """Mean, sample standard deviation (None for one value) and number of values."""

    mean: float
    sd: float | None
    n: int

    def scaled(self, factor: float) -> "Stat":
        """The same in another unit."""
        return Stat(self.mean * factor, None if self.sd is None else self.sd * factor, self.n)


@dataclass(frozen=True, slots=True)
class Quartiles:
    """Median and interquartile range of `n` values."""

    median: float
    q1: float
    q3: float
    n: int


def stat(values: Iterable[float | None]) -> Stat | None:
    """Of the values that are known; None without any."""
    known = [value for value in values if value is not None]
    return stat_of(known) if known else None


def stat_of(values: Sequence[float]) -> Stat:
    """Of at least one value."""
    return Stat(mean(values), stdev(values) if len(values) > 1 else None, len(values))


def quartiles(values: Sequence[float]) -> Quartiles:
    """Of at least one value."""
    q1, middle, q3 = (float(q) for q in np.percentile(values, (25, 50, 75)))
    return Quartiles(middle, q1, q3, len(values))


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two accuracies measured on one validation split, in points.

    Attributes:
        points: how much better the first one is.
        seeds: standard deviation over seeds of such a difference; None if either has one seed.
        sampling: its standard error from the size of the split alone; None if the size is not known. Both accuracies
            are taken as independent binomial proportions, which overstates it where both err on the same images.
    """

    points: float
    seeds: float | None
    sampling: float | None

    @property
    def noise(self) -> float | None:
        """What a difference must exceed to count, in points; None with a single seed, which decides nothing."""
        return None if self.seeds is None else math.hypot(self.seeds, self.sampling or 0.0)

    @property
    def decided(self) -> bool:
        """True if the difference exceeds its noise."""
        return self.noise is not None and abs(self.points) > self.noise

    @property
    def told_noise(self) -> str:
        """`one seed`, or `noise 1.8: seeds 0.3, validation split 1.8`."""
        if self.noise is None:
            return "one seed"
        split = "" if self.sampling is None else f": seeds {self.seeds:.1f}, validation split {self.sampling:.1f}"
        return f"noise {self.noise:.1f}{split}"


def difference(a: Stat, b: Stat, val_samples: int | None) -> Difference:
    """Of the accuracies `a` and `b` in [0, 1], measured on `val_samples` images."""
    seeds = None if a.sd is None or b.sd is None else 100 * math.hypot(a.sd, b.sd)
    sampling = None
    if val_samples:
        sampling = 100 * math.sqrt(sum(max(0.0, x.mean * (1 - x.mean)) for x in (a, b)) / val_samples)
    return Difference(100 * (a.mean - b.mean), seeds, sampling)
