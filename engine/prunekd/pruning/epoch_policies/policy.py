"""What a dynamic policy is: a pure function from an epoch and what was observed to the samples of that epoch."""

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np


class Observations(NamedTuple):
    """What training has seen of each sample, in ascending order of id; NaN where a sample was never seen.

    losses: float32 (n,), the last unweighted loss (the objective the student minimises).
    mean, variance: float32 (n,), moving averages of the loss and of its squared deviation from the average before,
        with the policy's `momentum`; empty for a policy that has none.
    """

    losses: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class Selection(NamedTuple):
    """The samples of an epoch: ids int64 (k,), ascending; weights float32 (k,), or None where all weigh the same."""

    ids: np.ndarray
    weights: np.ndarray | None


class DynamicPolicy:
    """A dynamic policy over the samples `ids` for a run of `epochs`.

    Subclasses answer `subset_for`, which depends on nothing but its arguments and those of the constructor: so all
    processes choose alike, and a resumed run chooses as the uninterrupted one did.

    Attributes:
        parameters: the policy's own numbers with their defaults.
        momentum: of the moving averages it wants to observe; None if it wants none.
    """

    parameters: ClassVar[Mapping[str, float]] = {}
    momentum: float | None = None

    def __init__(self, ids: np.ndarray, epochs: int, seed: int) -> None:
        self.ids = np.sort(np.asarray(ids, dtype=np.int64))
        self.epochs = epochs
        self.seed = seed

    def subset_for(self, epoch: int, observations: Observations) -> Selection:
        """The samples of `epoch`, counted from 0."""
        raise NotImplementedError

    def check_keep(self, keep: float) -> int:
        """How many samples the fraction `keep` means, half rounded up, at least 1; ValueError unless in (0, 1]."""
        return max(1, math.floor(len(self.ids) * self.check("keep", keep, 0 < keep <= 1, "a fraction in (0, 1]") + 0.5))

    def check(self, name: str, value: float, ok: bool, allowed: str) -> float:
        """Return `value`, or raise ValueError naming the parameter and what is allowed."""
        if not ok:
            raise ValueError(f"{name} of {type(self).__name__} is {value:g}; it must be {allowed}")
        return value
