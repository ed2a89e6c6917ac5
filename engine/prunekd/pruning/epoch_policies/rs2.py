"""rs2: a fresh random subset in every epoch (repeated sampling of random subsets, Okanovic et al., ICLR 2024).

With `replacement` 0, the default, subsets are drawn without replacement across epochs: as many epochs as there are
whole subsets in the data form a round, whose subsets share no sample; what is left over of a round is other samples in
every round. With `replacement` 1 every epoch draws from all samples anew.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from prunekd.common.philox import DROP, random_keys
from prunekd.pruning.epoch_policies.policy import DynamicPolicy, Observations, Selection


class RS2(DynamicPolicy):
    """See the module; what was observed plays no part."""

    parameters: ClassVar[Mapping[str, float]] = {"keep": 0.5, "replacement": 0}

    def __init__(self, ids: np.ndarray, epochs: int, seed: int, *, keep: float, replacement: float) -> None:
        super().__init__(ids, epochs, seed)
        self.keep = self.check("keep", keep, 0 < keep <= 1, "a fraction in (0, 1]")
        self.replacement = bool(self.check("replacement", replacement, replacement in (0, 1), "0 or 1"))

    def subset_for(self, epoch: int, observations: Observations) -> Selection:
        """See DynamicPolicy."""
        count = max(1, math.floor(len(self.ids) * self.keep + 0.5))
        in_round = 1 if self.replacement else len(self.ids) // count
        turn, place = divmod(epoch, in_round)
        order = np.lexsort((self.ids, random_keys(self.seed, turn, DROP, self.ids)))
        return Selection(np.sort(self.ids[order[place * count : (place + 1) * count]]), None)
