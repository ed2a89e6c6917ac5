"""Scores of one batch of a teacher's outputs: logits, labels and, where a score asks for them, features.

A new score is a function with an entry in SCORES. Its docstring starts with the versioned definition and its formula,
where z are the logits, y the label, p = softmax(z) and q = onehot(y).
"""

import torch
from torch import Tensor

from prunekd.pruning.scores.score import Outputs, Score


def teacher_ce(outputs: Outputs) -> Tensor:
    """teacher_ce@1: -log p_y in [0, inf), the teacher's cross-entropy.

    P2's difficulty (Chen et al., ICLR 2025, section 4.3).
    """
    return outputs.of_label.loss


def el2n(outputs: Outputs) -> Tensor:
    """el2n@1: ||p - q||_2 of one finished teacher, in [0, sqrt(2)].

    Paul et al. (NeurIPS 2021) average it over ten runs early in training. The same norm from a trained teacher is
    another quantity, hence the definition's version. Here p - q is miss * (-1 at y, rest elsewhere).
    """
    label = outputs.of_label
    return label.miss * (1 + label.rest.square().sum(dim=1)).sqrt()


def grand_last(outputs: Outputs) -> Tensor:
    """grand_last@1: ||p - q|| sqrt(1 + ||h||^2), the norm of the loss's gradient by the last linear layer.

    GraNd (Paul et al., NeurIPS 2021, definition 2.1) restricted to the last layer, where it needs no backward pass: for
    z = W h + b the gradient by W is the outer product (p - q) h^T and that by b is p - q, so together they have this
    norm, exactly. h are the features that enter the layer.
    """
    assert outputs.features is not None
    return el2n(outputs) * (1 + outputs.features.square().sum(dim=1)).sqrt()


def margin(outputs: Outputs) -> Tensor:
    """margin@1: z_y - max_{k != y} z_k, in logits; negative where the teacher is wrong."""
    own = outputs.logits.gather(1, outputs.labels[:, None])[:, 0]
    return own - outputs.of_label.best_other


def entropy(outputs: Outputs) -> Tensor:
    """entropy@1: -sum_k p_k log p_k in nats, in [0, log C]; needs no label.

    Coleman et al. (ICLR 2020) use it for selection. Computed by the chain rule: the entropy of "the top class or
    another" plus P(another) times the entropy among the others.
    """
    top = outputs.of_top
    among_others = -torch.where(top.rest > 0, top.rest * top.rest_log, 0).sum(dim=1)
    return (1 - top.miss) * top.loss + torch.special.entr(top.miss) + top.miss * among_others


def least_confidence(outputs: Outputs) -> Tensor:
    """least_confidence@1: 1 - max_k p_k, in [0, 1 - 1/C]; needs no label."""
    return outputs.of_top.miss


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(name="teacher_ce", version=1, hard_end="high", compute=teacher_ce),
        Score(name="el2n", version=1, hard_end="high", compute=el2n),
        Score(name="grand_last", version=1, hard_end="high", compute=grand_last, needs_features=True),
        Score(name="margin", version=1, hard_end="low", compute=margin),
        Score(name="entropy", version=1, hard_end="high", compute=entropy),
        Score(name="least_confidence", version=1, hard_end="high", compute=least_confidence),
    )
}
