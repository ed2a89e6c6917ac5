"""Means, spreads and quartiles of a few values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np


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


def spread(a: Stat, b: Stat) -> float | None:
    """Standard deviation over seeds of a difference of two accuracies, in points; None if either has one seed."""
    return None if a.sd is None or b.sd is None else 100 * math.hypot(a.sd, b.sd)
