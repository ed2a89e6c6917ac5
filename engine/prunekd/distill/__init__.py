"""What the student learns from: teachers, objectives, alpha."""

from prunekd.distill.alpha import resolve_alpha
from prunekd.distill.objective import OBJECTIVES, ObjectiveSettings, create_objective
from prunekd.distill.teacher import OnlineTeacher, TeacherSettings, describe_teacher, open_teacher

__all__ = [
    "OBJECTIVES",
    "ObjectiveSettings",
    "OnlineTeacher",
    "TeacherSettings",
    "create_objective",
    "describe_teacher",
    "open_teacher",
    "resolve_alpha",
]
