"""A score of one's own, `rival`: the probability that the teacher gives to the likeliest wrong class.

python docs/examples/own_score.py score store --teacher teacher --scores rival,el2n --out rival.parquet
"""

from torch import Tensor

from prunekd.cli import main
from prunekd.pruning.scores import SCORES, Outputs, Score


def compute(outputs: Outputs) -> Tensor:
    """float32 (B,) in [0, 1]. `of_label` has the softmax split into the label and the rest, without cancellation."""
    return outputs.of_label.miss * outputs.of_label.rest.amax(dim=1)


# the version goes into every scores file; raise it whenever the values for the same logits change
RIVAL = Score(name="rival", version=1, hard_end="high", compute=compute)

if __name__ == "__main__":
    SCORES[RIVAL.name] = RIVAL
    main()
