"""grand_last@1: the norm of the loss's gradient by the last linear layer, ||softmax(z) - onehot(y)|| sqrt(1 + ||h||^2).

GraNd (Paul et al., NeurIPS 2021, definition 2.1) restricted to the last layer, where it needs no backward pass: for
z = W h + b the gradient by W is the outer product (p - q) h^T and that by b is p - q, so together they have this norm,
exactly. h are the features that enter the layer.
"""

from torch import Tensor

from prunekd.pruning.scores import el2n
from prunekd.pruning.scores.score import Outputs, Score


def compute(outputs: Outputs) -> Tensor:
    """See the module; float32 (B,)."""
    assert outputs.features is not None
    return el2n.compute(outputs) * (1 + outputs.features.square().sum(dim=1)).sqrt()


SCORE = Score(name="grand_last", version=1, hard_end="high", compute=compute, needs_features=True)
