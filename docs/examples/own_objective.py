r"""An objective of one's own, `reverse`: the KL divergence the other way round, from the student to the teacher.

python docs/examples/own_objective.py train store --recipe demo --teacher teacher \
    --set distill.objective=reverse --out run
"""

from torch import Tensor
from torch.nn import functional as F

from prunekd.cli import main
from prunekd.distill import OBJECTIVES
from prunekd.distill.objective import TwoTerms


class Reverse(TwoTerms):
    """D = T^2 KL(softmax(z_s / T) || softmax(z_t / T)). TwoTerms adds the label's term, alpha and the weights."""

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """(B,) of logits (B, C), in float32 or float64."""
        temperature = self.settings.temperature
        ours = F.log_softmax(student / temperature, dim=1)
        theirs = F.log_softmax(teacher / temperature, dim=1)
        return temperature**2 * (ours.exp() * (ours - theirs)).sum(dim=1)


if __name__ == "__main__":
    OBJECTIVES["reverse"] = Reverse
    main()
