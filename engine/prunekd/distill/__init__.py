"""What the student learns from: teachers, objectives, alpha."""

from prunekd.distill.alpha import resolve_alpha
from prunekd.distill.break_even import BreakEven
from prunekd.distill.objective import Objective, ObjectiveSettings
from prunekd.distill.opening import open_teacher, wrap_module
from prunekd.distill.registry import OBJECTIVES, create_objective
from prunekd.distill.soft_labels import CachedTeacher, SoftLabels
from prunekd.distill.teacher import OnlineTeacher, TeacherSettings

__all__ = [
    "OBJECTIVES",
    "BreakEven",
    "CachedTeacher",
    "Objective",
    "ObjectiveSettings",
    "OnlineTeacher",
    "SoftLabels",
    "TeacherSettings",
    "create_objective",
    "open_teacher",
    "resolve_alpha",
    "wrap_module",
]
