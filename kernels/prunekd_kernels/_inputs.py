"""What every distillation loss takes, as its kernels get it."""

from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """The arguments of a loss; shapes as in `kd_loss`."""

    student: Tensor
    labels: Tensor
    weight: Tensor | None
    class_scale: Tensor | None
    alpha: float | Tensor
    """A tensor on a GPU only, whose kernels read it themselves; a CPU's kernel gets a number."""
    temperature: float | Tensor
    label_smoothing: float
    teacher: tuple[Tensor | None, ...]
    """What the teacher's rows are read from: the tensors that the loss's `DistillationLoss` names."""


def label_scale(class_scale: Tensor, labels: Tensor) -> Tensor:
    """Return the entry of `class_scale` (C,) for each label (B,), or its mean under soft labels (B, C), in float32.

    A label out of range takes the nearest class: no assertion fires on the device, and the kernel makes its row NaN.
    """
    if labels.dim() == 2:
        return labels.float() @ class_scale.float()
    return class_scale.float()[labels.long().clamp(0, class_scale.shape[0] - 1)]
