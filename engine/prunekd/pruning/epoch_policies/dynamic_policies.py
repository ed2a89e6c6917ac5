"""The dynamic policies there are: InfoBatch, RS2, UCB."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from prunekd.common.philox import DROP, random_keys, uniforms
from prunekd.pruning.epoch_policies.policy import DynamicPolicy, Observations, Selection


class InfoBatch(DynamicPolicy):
    """infobatch: leave out well-learned samples by chance, and weigh those that stay for those that do not.

    Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024. In each epoch a
    sample whose last loss lies below the mean of all last losses (equation 3) is dropped with probability `drop`. One
    that stays weighs 1 / (1 - drop), so the expected gradient is that of all the samples (equation 5). The last epochs,
    from the fraction `anneal` of the run on, see everything, unweighted. Samples that were never seen are kept.
    Defaults are the paper's.
    """

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


class RS2(DynamicPolicy):
    """rs2: a fresh random subset in every epoch (repeated sampling of random subsets, Okanovic et al., ICLR 2024).

    With `replacement` 0, the default, subsets are drawn without replacement across epochs: as many epochs as there are
    whole subsets in the data form a round, whose subsets share no sample; what is left over of a round is other samples
    in every round. With `replacement` 1 every epoch draws from all samples anew. Observations play no part.
    """

    parameters: ClassVar[Mapping[str, float]] = {"keep": 0.5, "replacement": 0}

    def __init__(self, ids: np.ndarray, epochs: int, seed: int, *, keep: float, replacement: float) -> None:
        super().__init__(ids, epochs, seed)
        self.count = self.check_keep(keep)
        self.replacement = bool(self.check("replacement", replacement, replacement in (0, 1), "0 or 1"))

    def subset_for(self, epoch: int, observations: Observations) -> Selection:
        """See DynamicPolicy."""
        in_round = 1 if self.replacement else len(self.ids) // self.count
        turn, place = divmod(epoch, in_round)
        order = np.lexsort((self.ids, random_keys(self.seed, turn, DROP, self.ids)))
        return Selection(np.sort(self.ids[order[place * self.count : (place + 1) * self.count]]), None)


class UCB(DynamicPolicy):
    """ucb: the samples with the highest upper confidence bound of their loss.

    Raju, Daruwalla and Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", 2021 (arXiv:2111.12621): a
    sample ranks by mean + confidence * variance of its loss, both as exponential moving averages. The top fraction
    `keep` is trained on, so what is left out for long keeps its old bound. The choice is made anew every epoch. Samples
    never seen come first, and the first epoch sees everything.
    """

    parameters: ClassVar[Mapping[str, float]] = {"keep": 0.5, "momentum": 0.8, "confidence": 1.0}

    def __init__(
        self, ids: np.ndarray, epochs: int, seed: int, *, keep: float, momentum: float, confidence: float
    ) -> None:
        super().__init__(ids, epochs, seed)
        self.count = self.check_keep(keep)
        self.momentum = self.check("momentum", momentum, 0 <= momentum < 1, "in [0, 1)")
        self.confidence = self.check("confidence", confidence, confidence >= 0, "0 or more")

    def subset_for(self, epoch: int, observations: Observations) -> Selection:
        """See DynamicPolicy."""
        bound = observations.mean.astype(np.float64) + self.confidence * observations.variance
        bound[np.isnan(bound)] = np.inf
        if np.isinf(bound).all():
            return Selection(self.ids, None)
        order = np.lexsort((self.ids, -bound))
        return Selection(np.sort(self.ids[order[: self.count]]), None)
