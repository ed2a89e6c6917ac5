"""Helpers shared by the tests."""

import os
import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import numpy as np
import pytest


def require(package: str) -> ModuleType:
    """Import an optional package; skip the test without it, or fail where PRUNEKD_REQUIRE lists it.

    Continuous integration sets PRUNEKD_REQUIRE, so that a package that silently stopped installing cannot turn its
    tests into skips.
    """
    try:
        return import_module(package)
    except ImportError as error:
        _absent(package, str(error))


def require_program(name: str) -> str:
    """Path of an optional program; without it, as `require`."""
    return shutil.which(name) or _absent(name, "not on the path")


def _absent(name: str, reason: str) -> NoReturn:
    if name in os.environ.get("PRUNEKD_REQUIRE", "").split(","):
        pytest.fail(f"{name} is required here: {reason}")
    pytest.skip(f"{name} is not installed ({reason})")


def write_arrays(path: Path, train: int = 96, val: int = 32, classes: int = 4, side: int = 12, seed: int = 0) -> Path:
    """Write an `.npz` source of coloured noise whose class shows in its mean colour, so that it can be learnt."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(40, 216, size=(classes, 1, 1, 3))

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % classes
        noise = rng.normal(0, 25, size=(count, side, side, 3))
        return np.clip(centres[labels] + noise, 0, 255).astype(np.uint8), labels.astype(np.int64)

    train_images, train_labels = images(train)
    val_images, val_labels = images(val)
    np.savez(
        path,
        train_images=train_images,
        train_labels=train_labels,
        val_images=val_images,
        val_labels=val_labels,
        classes=np.array([f"class{k}" for k in range(classes)]),
    )
    return path
