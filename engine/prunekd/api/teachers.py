"""Open a teacher."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from prunekd.api.stores import AnyStore, open_store
from prunekd.common.distributed import choose_device
from prunekd.distill import OnlineTeacher, wrap_module
from prunekd.distill.opening import as_teacher, teacher_settings
from prunekd.store import Store

logger = logging.getLogger(__name__)

Device = str | torch.device
TeacherLike = OnlineTeacher | nn.Module | str | Path

LARGEST_SIDE = 224  # pixels, of the images a module is tried on, unless the store's are smaller


def open_teacher(
    teacher: TeacherLike,
    store: AnyStore,
    *,
    precision: str = "bf16",
    size: int | str | None = None,
    compile: str = "auto",
    device: Device = "auto",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
) -> OnlineTeacher:
    """Open a frozen teacher for the classes of a store.

    Args:
        teacher: a run's folder, a `.safetensors` file of a run, `ARCHITECTURE@WEIGHTS`, `timm:NAME`, several of them
            with commas (the mean of their logits), or an nn.Module that takes normalized images float32 (B, 3, H, W)
            and returns logits (B, C). A module is copied and stays as it is. An OnlineTeacher is checked and returned.
        store: a Store or its path.
        precision: of weights and activations: `bf16`, `fp16`, `fp32`, or `auto` for the fastest measured.
        size: show it images of this side in pixels, or of its `own` size; None shows the student's views as they are.
        compile: `on`, `off`, or `auto` where torch.compile pays.
        device: `auto`, `cpu`, `cuda` or a torch.device.
        mean, std: normalization that a module was trained with, in [0, 1] pixel units, three numbers each.
        classes: class names of a module, in the order of its logits.

    Raises:
        ValueError: there is no such teacher, its classes are not the store's, or a module without mean, std or classes.

    Example:
        teacher = prunekd.open_teacher("teacher", "store", precision="fp32")
        print(teacher.describe()["model"])
    """
    store = open_store(store)
    described = {"mean": mean, "std": std, "classes": classes}
    if not isinstance(teacher, nn.Module):
        given = [name for name, value in described.items() if value is not None]
        if given:
            raise ValueError(f"{', '.join(given)} describe a module; the teacher {teacher!r} says them itself")
        chosen = device_of(teacher, device)
        opened = as_teacher(
            teacher, store.classes, precision=precision, size=size, compile=compile, device=choose_device(chosen)
        )
    else:
        if mean is None or std is None or classes is None:
            missing = [name for name, value in described.items() if value is None]
            raise ValueError(
                f"the teacher is a module ({type(teacher).__name__}) and {', '.join(missing)} are missing; give mean "
                "and std of its input in [0, 1] pixel units and its classes, such as classes=store.classes"
            )
        if size == "own":
            raise ValueError("a module does not say its own size; give the side in pixels")
        settings = teacher_settings(precision, size, compile, choose_device(device))
        side = settings.size if isinstance(settings.size, int) else usual_side(store)
        opened = wrap_module(teacher, settings, mean=mean, std=std, classes=classes, size=side)
        opened.check_fits(store.classes)
    logger.info(f"teacher: {opened!r}")
    return opened


def device_of(teacher: TeacherLike | None, device: Device) -> Device:
    """`device`, or for `auto` the device of a teacher that is open already."""
    return teacher.settings.device if device == "auto" and isinstance(teacher, OnlineTeacher) else device


def usual_side(store: Store) -> int:
    """Side in pixels that most images of a store fill, at most LARGEST_SIDE."""
    split = store.split("train")
    return int(min(LARGEST_SIDE, np.median(np.minimum(split.widths, split.heights))))
