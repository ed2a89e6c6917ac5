"""Fused kernels for knowledge distillation on pruned image datasets; usable without the rest of prunekd.

    from prunekd_kernels import kd_loss
    loss = kd_loss(student_logits, teacher_logits, labels, alpha=0.5, temperature=1.0).mean()

Each operation is a folder with a reference in plain PyTorch, a Triton kernel for GPUs and a Numba kernel for CPUs.
Importing this package imports neither Triton nor Numba; the first call that needs one does.
"""

from ._backends import BackendUnavailableError, Choice, available_backends, resolve_backend
from ._stats import KDStats

# These names are functions; `from ... import` rebinds them after the import system has put the folders of the same name
# there. `prunekd_kernels.kd_loss.reference` is still imported as `from prunekd_kernels.kd_loss.reference import ...`.
from .kd_loss import kd_loss
from .kd_loss_sparse import kd_loss_sparse
from .normalize import normalize
from .teacher_head_kd import teacher_head_kd

__all__ = [
    "BackendUnavailableError",
    "Choice",
    "KDStats",
    "available_backends",
    "kd_loss",
    "kd_loss_sparse",
    "normalize",
    "resolve_backend",
    "teacher_head_kd",
]
