"""`standardize`: both sides' logits are z-scored before the KL, so that the student need not match their scale.

Sun et al., "Logit Standardization in Knowledge Distillation" (CVPR 2024), algorithm 1.
"""

import torch
from torch import Tensor

from prunekd.distill.objective import TwoTerms, label_classes
from prunekd_kernels import kd_loss

# Std of a row below which its logits count as all equal (an untrained head of zeros): Z is 0, and so is its gradient.
# The paper's code adds 1e-7 to the std instead, which lets a row of zeros have a gradient of 1e7.
CONSTANT = 1e-3


class Standardized(TwoTerms):
    """D = T^2 KL(softmax(Z(z_t) / T) || softmax(Z(z_s) / T)),  Z(z) = (z - mean(z)) / std(z) over the classes.

    std is the unbiased one, as in the paper's code (the text divides by C: a temperature sqrt(C / (C - 1)) higher).
    The gradient goes through the student's mean and std. P2's reshaping of the teacher would be undone by Z.

    The paper: T = 2 and a KD weight of 9 against CE's 0.1 or 1, alpha = 0.9 or more here.
    """

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """See TwoTerms."""
        temperature = self.settings.temperature
        classes = label_classes(labels)  # of no consequence at alpha = 1
        return kd_loss(_standard(student), _standard(teacher), classes, alpha=1.0, temperature=temperature)


def _standard(logits: Tensor) -> Tensor:
    deviation = logits - logits.mean(1, keepdim=True)
    variance = deviation.square().sum(1, keepdim=True) / (logits.shape[1] - 1)
    varies = variance > CONSTANT**2
    return deviation * varies / torch.where(varies, variance, 1.0).sqrt()
