"""`dkd`: knowledge distillation decoupled into the target class and the others.

Zhao et al., "Decoupled Knowledge Distillation" (CVPR 2022), equations 5 to 9.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from prunekd.distill.objective import Option, TwoTerms, label_classes


class Decoupled(TwoTerms):
    """D = T^2 (target * TCKD + nontarget * NCKD), with all probabilities at temperature T and y the label:

        TCKD = KL((p_y, 1 - p_y) of the teacher || the same of the student)
        NCKD = KL(softmax over the classes other than y of the teacher || the same of the student)

    With target = 1 and nontarget = 1 - p_y of the teacher it would be plain KD, whatever y is. For soft labels y is the
    class with the largest share.

    Options: target (the paper's alpha), nontarget (its beta: 8 on CIFAR-100 for most pairs, 0.5 on ImageNet at T = 1).
    """

    options: ClassVar[Mapping[str, Option]] = {"target": 1.0, "nontarget": 8.0}

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """See TwoTerms."""
        temperature = self.settings.temperature
        target, nontarget = float(self.chosen["target"]), float(self.chosen["nontarget"])
        is_label = F.one_hot(label_classes(labels), student.shape[1]).bool()
        ours, ours_within = _split(student / temperature, is_label)
        theirs, theirs_within = _split(teacher / temperature, is_label)
        tckd = (theirs.exp() * (theirs - ours)).sum(1)
        nckd = (theirs_within.exp() * (theirs_within - ours_within)).masked_fill(is_label, 0.0).sum(1)
        return temperature**2 * (target * tckd + nontarget * nckd)


def _split(logits: Tensor, is_label: Tensor) -> tuple[Tensor, Tensor]:
    """log(p_y, 1 - p_y) (B, 2), and log-softmax (B, C) over the other classes (at the label without meaning)."""
    others = torch.logsumexp(logits.masked_fill(is_label, float("-inf")), 1, keepdim=True)
    everything = torch.logsumexp(logits, 1, keepdim=True)
    label = logits.masked_fill(~is_label, 0.0).sum(1, keepdim=True)
    # 1 - p_y as a sum of the others: the difference would be 0 for a confident teacher
    return torch.cat([label, others], 1) - everything, logits - others
