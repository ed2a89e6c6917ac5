"""Fused kernels for knowledge distillation on pruned image datasets; usable without the rest of prunekd.

    from prunekd_kernels import kd_loss
    loss = kd_loss(student_logits, teacher_logits, labels, alpha=0.5, temperature=1.0).mean()

Each operation is a folder with a reference in plain PyTorch, a Triton kernel for GPUs and a Numba kernel for CPUs:
`dense` (`kd_loss`), `topk` (`kd_loss_sparse`), `last_layer` (`teacher_head_kd`) and `normalization` (`normalize`).
What the three losses share stands beside the folders: `_loss` (arguments, checks, operators), `_numba_loss` and
`_triton_loss`.
Importing this package imports neither Triton nor Numba; the first call that needs one does.
"""

from ._backends import BackendUnavailableError, Choice, available_backends, resolve_backend
from ._stats import KDStats
from .dense import kd_loss
from .last_layer import teacher_head_kd
from .normalization import normalize
from .topk import kd_loss_sparse

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
