"""The objectives by name."""

from collections.abc import Mapping

from torch import Tensor

from prunekd.common.registry import unknown
from prunekd.distill.dist_loss import Relations
from prunekd.distill.dkd import Decoupled
from prunekd.distill.objective import (
    HardLabels,
    KnowledgeDistillation,
    Objective,
    ObjectiveSettings,
    Option,
    Reshaped,
)
from prunekd.distill.standardize import Standardized

OBJECTIVES: dict[str, type[Objective]] = {
    "hard": HardLabels,
    "kd": KnowledgeDistillation,
    "reshape": Reshaped,
    "dkd": Decoupled,
    "dist": Relations,
    "standardize": Standardized,
}


def create_objective(
    name: str,
    settings: ObjectiveSettings,
    class_scale: Tensor | None = None,
    options: Mapping[str, Option] | None = None,
) -> Objective:
    """Build the objective registered under `name`.

    Args:
        class_scale: (C,) float32, mean std of the teacher's logits by class, for `reshape` (and `kd`).
        options: the objective's own settings, see its class.

    Raises:
        ValueError: no such objective (with the nearest name); see Objective.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name](settings, class_scale, options)
