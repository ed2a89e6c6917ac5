"""el2n@1: ||softmax(z) - onehot(y)||_2 of one finished teacher.

Paul et al. (NeurIPS 2021) average it over ten runs early in training; the same norm from a trained teacher is another
quantity, hence the definition's version.
"""

from torch import Tensor

from prunekd.pruning.scores.score import Outputs, Score


def compute(outputs: Outputs) -> Tensor:
    """The error vector's length, in [0, sqrt(2)]: p - q is miss * (-1 at y, rest elsewhere)."""
    label = outputs.of_label
    return label.miss * (1 + label.rest.square().sum(dim=1)).sqrt()


SCORE = Score(name="el2n", version=1, hard_end="high", compute=compute)
