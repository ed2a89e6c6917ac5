"""Readers led through plans, for their tests."""

import shutil
from pathlib import Path
from typing import Any

import torch

from prunekd.input import EpochPlan, Reader, ViewSettings, open_reader, train_plan
from prunekd.store import Store, open_store


def plan_of(store: Store, view: ViewSettings, batch_size: int = 7, **more: Any) -> EpochPlan:
    settings = {"ids": None, "seed": 3, "epoch": 2, **more}
    return train_plan(store.split("train"), batch_size=batch_size, view=view, **settings)


def opened(name: str, store: Store, **more: Any) -> Reader:
    return open_reader(name, store, "train", **{"workers": 2, **more})


def collect(reader: Reader, plan_: EpochPlan) -> list[tuple[torch.Tensor, ...]]:
    return [(b.images.clone(), b.labels.clone(), b.ids.clone()) for b in reader.epoch(plan_)]


def seen(reader: Reader, plan_: EpochPlan) -> list[int]:
    return [i for batch in reader.epoch(plan_) for i in batch.ids.tolist()]


def copy_of(store: Store, folder: Path) -> Store:
    """A copy that a test may damage."""
    shutil.copytree(store.path, folder / "store")
    return open_store(folder / "store")


def damage(store: Store, row: int, where: int, what: bytes) -> None:
    """Write over a part of a payload."""
    split = store.split("train")
    with split.path.open("r+b") as file:
        file.seek(int(split.pointers[row]) + where)
        file.write(what)
