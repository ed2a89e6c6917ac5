"""Distillation: the objectives as one loss module for a training loop of one's own."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prunekd.common.registry import unknown
from prunekd.distill.objective import HardLabels, ObjectiveSettings, Option, Targets
from prunekd.distill.registry import create_objective

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "none": lambda losses: losses,
}


class Distillation(nn.Module):
    """Loss of a student that learns from labels and from a teacher.

        L_i = w_i * [(1 - alpha) * CE(z_s, y; label_smoothing) + alpha * T^2 * KL(softmax(z_t / T) || softmax(z_s / T))]

    (Hinton et al. 2015, arXiv:1503.02531), in one fused kernel forward and one backward. Other objectives put another
    term in the place of the KL. Gradients reach the student's logits only. It has no parameters.

    Args:
        alpha: weight of the teacher's term, in [0, 1].
        temperature: T > 0; 4 is usual on CIFAR, 1 on ImageNet.
        label_smoothing: mass spread over all classes in the label's term, in [0, 1).
        objective: a name in `prunekd.distill.OBJECTIVES`: kd, reshape, dkd, dist, standardize, or hard (labels alone).
        reduction: `mean` over the batch, `sum`, or `none` for the losses (B,). `mean` divides by the batch size and not
            by the sum of the weights, so that a weight means the same in every batch; `prunekd train` does so too.
        class_scale: (C,) positive, mean std of the teacher's logits by class; reshapes the teacher's logits to
            z_t / std(z_t) * class_scale[y] (for `reshape`, or `kd`). It moves with the module.
        options: the objective's own settings, such as `nontarget` of dkd; see its class.

    Raises:
        ValueError: a value out of range, or an unknown name.

    Example:
        >>> import torch
        >>> from prunekd import Distillation
        >>> loss_fn = Distillation(alpha=0.9, temperature=4.0)
        >>> student, teacher = torch.randn(8, 10, requires_grad=True), torch.randn(8, 10)
        >>> loss_fn(student, teacher, torch.arange(8)).backward()
    """

    class_scale: Tensor | None

    def __init__(
        self,
        *,
        alpha: float = 0.9,
        temperature: float = 4.0,
        label_smoothing: float = 0.0,
        objective: str = "kd",
        reduction: str = "mean",
        class_scale: Tensor | None = None,
        **options: Option,
    ) -> None:
        super().__init__()
        if isinstance(alpha, str):
            raise ValueError(f"alpha is {alpha!r}; give a number in [0, 1] (rules such as auto belong to recipes)")
        if reduction not in REDUCTIONS:
            raise unknown("reduction", reduction, REDUCTIONS)
        self.objective, self.reduction = objective, reduction
        settings = ObjectiveSettings(alpha=alpha, temperature=temperature, label_smoothing=label_smoothing)
        self._with_teacher = create_objective(objective, settings, class_scale, options)
        self._labels_alone = HardLabels(settings)
        self.register_buffer("class_scale", class_scale, persistent=False)

    def extra_repr(self) -> str:
        """The settings, for `repr`."""
        settings = self._with_teacher.settings
        chosen = "".join(f", {name}={value}" for name, value in self._with_teacher.chosen.items())
        return (
            f"alpha={settings.alpha}, temperature={settings.temperature}, label_smoothing={settings.label_smoothing}, "
            f"objective={self.objective!r}, reduction={self.reduction!r}{chosen}"
        )

    def forward(
        self, student_logits: Tensor, teacher_logits: Targets, labels: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss, without reading anything back from the device.

        Args:
            student_logits: (B, C), of any floating dtype (autocast's included).
            teacher_logits: (B, C), of any floating dtype, or SoftLabels of the batch; None only with alpha 0 or the
                objective hard.
            labels: int (B,) in [0, C), or soft labels float (B, C) (mixup).
            weights: float (B,), or None for ones.

        Returns:
            A scalar, or (B,) for reduction `none`; float32, or float64 if any of the logits is.

        Raises:
            ValueError: no teacher where one is needed; shapes or dtypes that do not fit.
        """
        chosen, settings, reduce = self._with_teacher, self._with_teacher.settings, REDUCTIONS[self.reduction]
        if teacher_logits is None:
            if chosen.needs_teacher and settings.alpha > 0:
                raise ValueError(
                    f"teacher_logits is None, but alpha is {settings.alpha} and the objective {self.objective!r} needs "
                    "a teacher; give its logits, or use alpha=0"
                )
            return reduce(self._labels_alone(student_logits, None, labels, weights))
        return reduce(chosen(student_logits, teacher_logits, labels, weights))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Distillation":
        super()._apply(fn, recurse)
        self._with_teacher.class_scale = self.class_scale  # `to` and `cuda` make another tensor of a buffer
        return self
