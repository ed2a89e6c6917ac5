"""least_confidence@1: 1 - max_k p_k; asks for no label."""

from torch import Tensor

from prunekd.pruning.scores.score import Outputs, Score


def compute(outputs: Outputs) -> Tensor:
    """The probability of being anything but the predicted class, in [0, 1 - 1/C]."""
    return outputs.of_top.miss


SCORE = Score(name="least_confidence", version=1, hard_end="high", compute=compute)
