"""grand_last@1: the norm of the loss's gradient in the last linear layer, ||p - q||_2 * sqrt(1 + ||h||^2).

GraNd (Paul et al., NeurIPS 2021) restricted to the last layer's weight and bias, as DeepCore computes it, in closed
form: the weight's gradient is (p - q) h^T, the bias's is p - q.
"""

from torch import Tensor

from prunekd.pruning.scores import el2n
from prunekd.pruning.scores.score import Outputs, Score


def compute(outputs: Outputs) -> Tensor:
    """||p - q||_2 * sqrt(1 + ||h||_2^2), in [0, inf)."""
    assert outputs.features is not None
    return el2n.compute(outputs) * (1 + outputs.features.square().sum(dim=1)).sqrt()


SCORE = Score(name="grand_last", version=1, hard_end="high", compute=compute, needs_features=True)
