"""infobatch: leave out well-learnt samples by chance, and weigh those that stay for those that do not.

Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024. In each epoch a sample
whose last loss lies below the mean of all last losses (equation 3) is dropped with probability `drop`; one that stays
weighs 1 / (1 - drop), so the expected gradient is that of all the samples (equation 5). The last epochs, from the
fraction `anneal` of the run on, see everything, unweighted. Defaults are the paper's.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from prunekd.common.philox import DROP, uniforms
from prunekd.pruning.epoch_policies.policy import DynamicPolicy, Observations, Selection


class InfoBatch(DynamicPolicy):
    """See the module; samples that were never seen are kept."""

    parameters: ClassVar[Mapping[str, float]] = {"drop": 0.5, "anneal": 0.875}

    def __init__(self, ids: np.ndarray, epochs: int, seed: int, *, drop: float, anneal: float) -> None:
        super().__init__(ids, epochs, seed)
        self.drop = self.check("drop", drop, 0 <= drop < 1, "a probability in [0, 1)")
        self.anneal = self.check("anneal", anneal, 0 <= anneal <= 1, "a fraction of the run in [0, 1]")

    def subset_for(self, epoch: int, observations: Observations) -> Selection:
        """See DynamicPolicy."""
        losses = observations.losses
        seen = ~np.isnan(losses)
        if epoch >= int(self.anneal * self.epochs) or not seen.any():
            return Selection(self.ids, None)
        below = np.zeros(len(losses), dtype=bool)
        below[seen] = losses[seen] < losses[seen].mean(dtype=np.float64)
        stays = ~below | (uniforms(self.seed, epoch, DROP, self.ids)[0] >= self.drop)
        weights = np.where(below, 1 / (1 - self.drop), 1.0).astype(np.float32)
        return Selection(self.ids[stays], weights[stays])
