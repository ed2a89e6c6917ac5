"""margin@1: z_y - max_{k != y} z_k, in logits; negative where the teacher is wrong."""

from torch import Tensor

from prunekd.pruning.scores.score import Outputs, Score


def compute(outputs: Outputs) -> Tensor:
    """The label's logit above the best other one."""
    own = outputs.logits.gather(1, outputs.labels[:, None])[:, 0]
    return own - outputs.of_label.best_other


SCORE = Score(name="margin", version=1, hard_end="low", compute=compute)
