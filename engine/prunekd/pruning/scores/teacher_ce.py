"""teacher_ce@1: -log p_y, the teacher's cross-entropy; P2's difficulty (Chen et al., ICLR 2025, section 4.3)."""

from torch import Tensor

from prunekd.pruning.scores.score import Outputs, Score


def compute(outputs: Outputs) -> Tensor:
    """-log softmax(z)_y, in [0, inf)."""
    return outputs.of_label.loss


SCORE = Score(name="teacher_ce", version=1, hard_end="high", compute=compute)
