"""ucb: the samples with the highest upper confidence bound of their loss.

Raju, Daruwalla and Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", 2021 (arXiv:2111.12621): a sample
ranks by mean + confidence * variance of its loss, both as exponential moving averages; the top fraction `keep` is
trained on, so what is left out for long keeps its old bound. The choice is made anew every epoch. Samples never seen
come first, and the first epoch sees everything.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from prunekd.pruning.epoch_policies.policy import DynamicPolicy, Observations, Selection


class UCB(DynamicPolicy):
    """See the module."""

    parameters: ClassVar[Mapping[str, float]] = {"keep": 0.5, "momentum": 0.8, "confidence": 1.0}

    def __init__(
        self, ids: np.ndarray, epochs: int, seed: int, *, keep: float, momentum: float, confidence: float
    ) -> None:
        super().__init__(ids, epochs, seed)
        self.keep = self.check("keep", keep, 0 < keep <= 1, "a fraction in (0, 1]")
        self.momentum = self.check("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
        self.confidence = self.check("confidence", confidence, confidence >= 0, "0 or more")

    def subset_for(self, epoch: int, observations: Observations) -> Selection:
        """See DynamicPolicy."""
        bound = observations.mean.astype(np.float64) + self.confidence * observations.variance
        bound[np.isnan(bound)] = np.inf
        if np.isinf(bound).all():
            return Selection(self.ids, None)
        count = max(1, math.floor(len(self.ids) * self.keep + 0.5))
        order = np.lexsort((self.ids, -bound))
        return Selection(np.sort(self.ids[order[:count]]), None)
