"""`dist`: match the student's relations between classes and between samples, not the values of its probabilities.

Huang et al., "Knowledge Distillation from A Stronger Teacher" (NeurIPS 2022), equations 6 to 10.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from prunekd.distill.objective import Option, TwoTerms

# Relative deviation below which probabilities count as all equal (an untrained head of zeros): their correlation is 0,
# and so is its gradient, which would grow without bound just above.
CONSTANT = 1e-5


class Relations(TwoTerms):
    """D_i = T^2 (inter * (1 - r_i) + intra * (1 - s_i)), of Y = softmax(z / T), Pearson correlations throughout.

    r_i correlates sample i's row of the student's Y with the teacher's (inter-class relation). The intra-class relation
    correlates column c, one class over the batch, so it belongs to the batch. It is shared out among the samples by
    what each adds to the correlations: with weighted means m and deviations d = Y - m over the batch of total weight W,

        corr_c = sum_i w_i d^s_ic d^t_ic / (|d^s_c| |d^t_c|),   |d_c|^2 = sum_i w_i d_ic^2
        s_i    = W / C sum_c d^s_ic d^t_ic / (|d^s_c| |d^t_c|)

    so that the mean of s_i under the weights is the mean correlation over classes: without weights the mean of the
    losses is the paper's loss, and a weight of 2 counts like a sample met twice. A single s_i may exceed 1.

    The batch is what one call sees: a part of it under gradient accumulation, a process's own under torchrun.

    Options: inter (the paper's beta), intra (its gamma). The paper's code has 1 and 1, at T = 1 (4 on CIFAR-100), with
    the whole term at twice the weight of CE: alpha = 2 / 3.
    """

    options: ClassVar[Mapping[str, Option]] = {"inter": 1.0, "intra": 1.0}

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """See TwoTerms."""
        temperature = self.settings.temperature
        inter, intra = float(self.chosen["inter"]), float(self.chosen["intra"])
        ours, theirs = torch.softmax(student / temperature, 1), torch.softmax(teacher / temperature, 1)
        even = ours.new_ones(())
        by_class = _shares(ours, theirs, even, 1).sum(1)
        rows = even.expand(len(ours), 1) if weights is None else weights.detach().to(ours.dtype).unsqueeze(1)
        by_sample = rows.sum() * _shares(ours, theirs, rows, 0).mean(1)
        return temperature**2 * (inter * (1 - by_class) + intra * (1 - by_sample))


def _shares(a: Tensor, b: Tensor, weights: Tensor, along: int) -> Tensor:
    """What each entry adds, per unit of weight, to the weighted Pearson correlation of a and b along a dimension."""
    weights = weights.expand(a.shape[0], 1) if along == 0 else weights.expand(1, a.shape[1])
    return _unit(a, weights, along) * _unit(b, weights, along)


def _unit(a: Tensor, weights: Tensor, along: int) -> Tensor:
    """Deviations from the weighted mean, scaled to a weighted norm of 1; zeros without a gradient if all are equal."""
    mean = (weights * a).sum(along, keepdim=True) / weights.sum(along, keepdim=True)
    deviation = a - mean
    square = (weights * deviation.square()).sum(along, keepdim=True)
    varies = square > CONSTANT**2 * (weights * a.square()).sum(along, keepdim=True)
    return deviation * varies / torch.where(varies, square, 1.0).sqrt()
