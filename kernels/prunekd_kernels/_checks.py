"""Argument checks shared by the losses: shapes and dtypes at the call, values where that costs no sync."""

import torch
from torch import Tensor

_LOGIT_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_LABEL_DTYPES = (torch.int64, torch.int32)
MIN_CLASSES = 2


def check_logits(name: str, logits: Tensor) -> None:
    """Raise ValueError unless `logits` is a (B, C >= 2) matrix of a floating dtype."""
    if logits.dim() != 2 or logits.shape[1] < MIN_CLASSES:
        raise ValueError(f"{name} has shape {tuple(logits.shape)}; expected (B, C) with C >= {MIN_CLASSES}")
    if logits.dtype not in _LOGIT_DTYPES:
        raise ValueError(f"{name} has dtype {logits.dtype}; expected float32, bfloat16, float16 or float64")


def check_labels(labels: Tensor, like: Tensor) -> None:
    """Raise ValueError unless `labels` is (B,) int32 or int64, or (B, C) floating, for logits `like` (B, C)."""
    if labels.dim() == 1:
        if labels.dtype not in _LABEL_DTYPES:
            raise ValueError(
                f"labels have dtype {labels.dtype}; expected int32 or int64 (or soft labels (B, C), floating)"
            )
        check_rows("labels", labels, like)
    elif labels.shape != like.shape or not labels.dtype.is_floating_point:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}; "
            f"expected (B,) integers or soft labels {tuple(like.shape)} of a floating dtype"
        )
    check_device("labels", labels, like)


def check_rows(name: str, values: Tensor | None, like: Tensor) -> None:
    """Raise ValueError unless `values` is None or (B,) on the device of `like` (B, C)."""
    if values is None:
        return
    if values.shape != like.shape[:1]:
        raise ValueError(f"{name} has shape {tuple(values.shape)}; expected one per row, ({like.shape[0]},)")
    check_device(name, values, like)


def check_classes(name: str, values: Tensor | None, like: Tensor) -> None:
    """Raise ValueError unless `values` is None or (C,) on the device of `like` (B, C)."""
    if values is None:
        return
    if values.shape != like.shape[1:]:
        raise ValueError(f"{name} has shape {tuple(values.shape)}; expected one per class, ({like.shape[1]},)")
    check_device(name, values, like)


def check_device(name: str, tensor: Tensor, like: Tensor) -> None:
    """Raise ValueError unless both tensors are on one device."""
    if tensor.device != like.device:
        raise ValueError(f"{name} is on {tensor.device} and the student's logits on {like.device}; move one of them")


def check_scalars(alpha: float | Tensor, temperature: float | Tensor, label_smoothing: float) -> None:
    """Raise ValueError for numbers out of range; of a 0-d tensor only the shape is checked (no sync)."""
    for name, value in (("alpha", alpha), ("temperature", temperature)):
        if isinstance(value, Tensor) and value.dim() != 0:
            raise ValueError(f"{name} has shape {tuple(value.shape)}; expected a number or a 0-d tensor")
    if torch.compiler.is_compiling():
        return  # comparing a number here would make it a constant of the graph, and every change a recompilation
    if not isinstance(alpha, Tensor) and not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha={alpha} is out of range; it is the share of the KD term, from 0 to 1")
    if not isinstance(temperature, Tensor) and not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature} is out of range; it must be positive and finite")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing={label_smoothing} is out of range; it must be in [0, 1)")


def check_index_values(name: str, ids: Tensor, num_classes: int) -> None:
    """Raise ValueError if a CPU tensor of class ids holds one out of range; on other devices this would synchronise."""
    if ids.device.type != "cpu" or ids.numel() == 0 or ids.dtype.is_floating_point:
        return
    values = ids.numpy()  # for a batch of labels a third of the time of torch.aminmax
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise ValueError(f"{name} hold {wrong}, but the logits have {num_classes} classes (0 to {num_classes - 1})")
