"""Objectives: per-sample losses of a student that may have a teacher. This module holds what they share, and `kd`.

Every objective is  L = w [(1 - a) CE(z_s, y; smoothing) + a D(z_s, z_t)]  with D a teacher's term of its own. A paper
that adds CE + c D instead is met by a = c / (1 + c), and a learning rate 1 + c times as high.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor

from prunekd.common.registry import unknown
from prunekd.distill.soft_labels import SoftLabels
from prunekd_kernels import KDStats, kd_loss, kd_loss_sparse

Option = float | str
Targets = Tensor | SoftLabels | None
RESIDUALS = ("renormalize", "spread")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSettings:
    """Weights of an objective.

    alpha: weight of the teacher's term, 0 to 1; temperature: softens both distributions, > 0; label_smoothing:
    mass spread over all classes in the label's term, 0 to 1 (exclusive).
    """

    alpha: float = 0.5
    temperature: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"alpha is {self.alpha}; it weighs the teacher's term and must lie in [0, 1]")
        if not 0.0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it must be positive (4 on CIFAR, 1 on ImageNet)")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must lie in [0, 1)")


class Objective:
    """A per-sample loss; subclasses give `_losses`.

    Attributes:
        needs_teacher: whether it looks at the teacher at all.
        takes_topk: whether soft labels of which only the top K were kept will do.
        takes_class_scale: whether the teacher's logits can be reshaped with class statistics.
        options: its own settings with their defaults.

    Args:
        class_scale: (C,) float32, mean std of the teacher's logits by class; switches P2's reshaping on.
        options: values for some of `options`.

    Raises:
        ValueError: an unknown option, one of the wrong kind, or class statistics where they mean nothing.
    """

    needs_teacher: ClassVar[bool] = True
    takes_topk: ClassVar[bool] = False
    takes_class_scale: ClassVar[bool] = False
    options: ClassVar[Mapping[str, Option]] = {}

    def __init__(
        self,
        settings: ObjectiveSettings,
        class_scale: Tensor | None = None,
        options: Mapping[str, Option] | None = None,
    ) -> None:
        if class_scale is not None and not self.takes_class_scale:
            raise ValueError(
                f"the objective {type(self).__name__} does not reshape the teacher's logits with class statistics; "
                "leave them out or use the objective reshape"
            )
        self.settings = settings
        if class_scale is not None and not bool((torch.isfinite(class_scale) & (class_scale > 0)).all()):
            raise ValueError(
                "class_scale holds numbers that are not positive and finite; give the mean std of the teacher's logits "
                "for every class: those that `prunekd score STORE --teacher T` writes"
            )
        self.class_scale = class_scale
        self.chosen = _checked(type(self), options or {})

    def __repr__(self) -> str:
        chosen = "".join(f", {name}={value}" for name, value in self.chosen.items())
        return f"{type(self).__name__}({self.settings}{chosen})"

    @overload
    def __call__(
        self, student: Tensor, teacher: Targets, labels: Tensor, weights: Tensor | None, stats: Literal[False] = ...
    ) -> Tensor: ...

    @overload
    def __call__(
        self, student: Tensor, teacher: Targets, labels: Tensor, weights: Tensor | None, stats: Literal[True]
    ) -> tuple[Tensor, KDStats]: ...

    def __call__(
        self, student: Tensor, teacher: Targets, labels: Tensor, weights: Tensor | None, stats: bool = False
    ) -> Tensor | tuple[Tensor, KDStats]:
        """Per-sample losses, without reading anything back from the device.

        Args:
            student: logits (B, C); the only argument that gets a gradient.
            teacher: logits (B, C), or cached soft labels, or None where no teacher is needed.
            labels: int (B,), or soft labels float (B, C) (mixup), which enter the label's term.
            weights: float (B,) or None.
            stats: also return KDStats of the student's prediction.

        Returns:
            Losses (B,) float32 (float64 if the student's logits are), or (losses, KDStats).
        """
        losses, found = self._losses(student, teacher, labels, weights, stats)
        if not stats:
            return losses
        assert found is not None
        return losses, found

    def _losses(
        self, student: Tensor, teacher: Targets, labels: Tensor, weights: Tensor | None, stats: bool
    ) -> tuple[Tensor, KDStats | None]:
        raise NotImplementedError


class HardLabels(Objective):
    """`hard`: cross-entropy with the (smoothed) label; the teacher is not looked at."""

    needs_teacher = False

    def _losses(
        self, student: Tensor, teacher: Targets, labels: Tensor, weights: Tensor | None, stats: bool
    ) -> tuple[Tensor, KDStats | None]:
        return label_losses(student, labels, self.settings.label_smoothing, weights, stats)


class KnowledgeDistillation(Objective):
    """`kd`: D = T^2 KL(softmax(z_t / T) || softmax(z_s / T)) (Hinton et al. 2015), all in one fused kernel.

    Options: residual, what becomes of the teacher's probability outside cached top-K logits: `renormalize` gives it to
    the K in proportion, `spread` to all other classes evenly; without meaning for full logits.
    """

    takes_topk = True
    takes_class_scale = True
    options: ClassVar[Mapping[str, Option]] = {"residual": "renormalize"}

    def __init__(
        self,
        settings: ObjectiveSettings,
        class_scale: Tensor | None = None,
        options: Mapping[str, Option] | None = None,
    ) -> None:
        super().__init__(settings, class_scale, options)
        residual = self.chosen["residual"]
        if residual not in RESIDUALS:
            raise ValueError(f"residual is {residual!r}; it must be {' or '.join(RESIDUALS)}")
        if residual == "spread" and class_scale is not None:
            raise ValueError(
                "residual spread cannot be had together with reshaped logits: the mass outside the top K is known for "
                "the teacher's own logits only; use renormalize"
            )

    def _losses(
        self, student: Tensor, teacher: Targets, labels: Tensor, weights: Tensor | None, stats: bool
    ) -> tuple[Tensor, KDStats | None]:
        common: dict[str, Any] = {
            "alpha": self.settings.alpha,
            "temperature": self.settings.temperature,
            "label_smoothing": self.settings.label_smoothing,
            "weight": weights,
            "class_scale": self.class_scale,
            "stats": stats,
        }
        if isinstance(teacher, SoftLabels) and teacher.ids is not None:
            return self._sparse(student, teacher, labels, common)
        dense: Callable[..., Any] = kd_loss
        return _pair(dense(student, full_logits(teacher), labels, **common))

    def _sparse(
        self, student: Tensor, teacher: SoftLabels, labels: Tensor, common: dict[str, Any]
    ) -> tuple[Tensor, KDStats | None]:
        residual = self.chosen["residual"]
        if residual == "spread" and teacher.temperature != self.settings.temperature:
            raise ValueError(
                f"the soft labels know the mass outside their top K at temperature {teacher.temperature:g}, the "
                f"objective's is {self.settings.temperature:g}; use that one, or residual=renormalize"
            )
        sparse: Callable[..., Any] = kd_loss_sparse
        return _pair(
            sparse(
                student,
                teacher.ids,
                teacher.logits,
                teacher.logsumexp,
                labels,
                residual=residual,
                teacher_std=None if self.class_scale is None else teacher.std,
                **common,
            )
        )


class Reshaped(KnowledgeDistillation):
    """`reshape`: `kd` with the teacher's logits reshaped to z_t / std(z_t) * s_y (P2, MDSLR, ICLR 2025).

    s_c is the mean std of the teacher's logits over all samples of class c, which a scores file of that teacher holds.
    """

    def __init__(
        self,
        settings: ObjectiveSettings,
        class_scale: Tensor | None = None,
        options: Mapping[str, Option] | None = None,
    ) -> None:
        if class_scale is None:
            raise ValueError(
                "the objective reshape needs the teacher's class statistics; give the scores file of a pass of this "
                "teacher over the store (--reshape SCORES, made by `prunekd score`)"
            )
        super().__init__(settings, class_scale, options)


class TwoTerms(Objective):
    """An objective whose teacher's term D is plain PyTorch; subclasses give `teacher_term`.

    The label's term and the stats come from one call of the fused kernel.
    """

    def _losses(
        self, student: Tensor, teacher: Targets, labels: Tensor, weights: Tensor | None, stats: bool
    ) -> tuple[Tensor, KDStats | None]:
        alpha = self.settings.alpha
        hard, found = label_losses(student, labels, self.settings.label_smoothing, None, stats)
        logits = full_logits(teacher)
        dtype = torch.promote_types(torch.promote_types(student.dtype, logits.dtype), torch.float32)
        soft = self.teacher_term(student.to(dtype), logits.detach().to(dtype), labels, weights)
        losses = (1 - alpha) * hard + alpha * soft
        return (losses if weights is None else losses * weights.to(losses.dtype)), found

    def teacher_term(self, student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """D (B,), not yet weighted, of logits (B, C) of one floating dtype, float32 or float64."""
        raise NotImplementedError


def label_losses(
    student: Tensor, labels: Tensor, smoothing: float, weights: Tensor | None, stats: bool
) -> tuple[Tensor, KDStats | None]:
    """Cross-entropy (B,) with (smoothed, possibly soft) labels, and KDStats if asked for, in one pass."""
    losses: Callable[..., Any] = kd_loss
    return _pair(
        losses(
            student, None, labels, alpha=0.0, temperature=1.0, label_smoothing=smoothing, weight=weights, stats=stats
        )
    )


def full_logits(teacher: Targets) -> Tensor:
    """The teacher's logits (B, C); ValueError if there are none, or only the top K of them were kept."""
    if teacher is None:
        raise ValueError("this objective needs a teacher; give its logits or soft labels, or use the objective hard")
    if isinstance(teacher, Tensor):
        return teacher
    if teacher.ids is not None:
        raise ValueError(
            f"this objective needs all logits of the teacher, the soft labels hold the top {teacher.ids.shape[1]}; "
            "make them with `prunekd labels --topk full`, or use the objective kd"
        )
    return teacher.logits


def label_classes(labels: Tensor) -> Tensor:
    """Labels as classes int64 (B,): of soft labels the class with the largest share, the first of equals."""
    return labels.argmax(1) if labels.dim() == 2 else labels.long()


def _pair(result: Tensor | tuple[Tensor, KDStats]) -> tuple[Tensor, KDStats | None]:
    return (result, None) if isinstance(result, Tensor) else result


def _checked(kind: type[Objective], given: Mapping[str, Option]) -> dict[str, Option]:
    """All options of an objective; numbers must be finite and not negative."""
    for name, value in given.items():
        if name not in kind.options:
            if not kind.options:
                raise ValueError(f"the objective {kind.__name__} has no options, but was given {name}={value}")
            raise unknown(f"option of the objective {kind.__name__}", name, kind.options)
        if isinstance(kind.options[name], str):
            continue
        if isinstance(value, (str, bool)) or not 0.0 <= value < float("inf"):
            raise ValueError(f"{name} is {value!r}; it is a weight: a number, 0 or more")
    return {**kind.options, **given}
