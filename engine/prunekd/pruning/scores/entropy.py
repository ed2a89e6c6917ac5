"""entropy@1: -sum_k p_k log p_k in nats; asks for no label (Coleman et al., ICLR 2020, use it for selection)."""

import torch
from torch import Tensor

from prunekd.pruning.scores.score import Outputs, Score


def compute(outputs: Outputs) -> Tensor:
    """Entropy in [0, log C].

    By the chain rule: the entropy of "the top class or another" plus P(another) times the entropy among the others.
    """
    top = outputs.of_top
    among_others = -torch.where(top.rest > 0, top.rest * top.rest_log, 0).sum(dim=1)
    return (1 - top.miss) * top.loss + torch.special.entr(top.miss) + top.miss * among_others


SCORE = Score(name="entropy", version=1, hard_end="high", compute=compute)
