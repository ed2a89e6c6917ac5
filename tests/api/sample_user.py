"""A user's script over the whole public face. It is checked by mypy, and never run."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import prunekd


def prepare(folder: Path) -> tuple[prunekd.Store, prunekd.Subset]:
    """Convert, score, select: objects or paths alike."""
    store: prunekd.Store = prunekd.convert("photos", folder / "store", max_side=512, val_fraction=0.02)
    store = prunekd.open_store(str(folder / "store"))
    teacher: prunekd.OnlineTeacher = prunekd.open_teacher("timm:resnet34.tv_in1k", store)
    scores: prunekd.Scores = prunekd.score(store, teacher)
    scores.save(folder / "scores.parquet")
    hardest: np.ndarray = scores["el2n"].argsort()[-10:]
    print(scores.to_table().num_rows, hardest)
    half: prunekd.Subset = prunekd.select(store, "medium", keep=0.5, scores=folder / "scores.parquet")
    half.save(folder / "half.parquet")
    print(len(half), half.ids.dtype)
    return store, half


def train_by_hand(store: prunekd.Store, half: prunekd.Subset, student: nn.Module) -> None:
    """A training loop of one's own."""
    teacher = prunekd.open_teacher(nn.Linear(2, 2), store, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    loader = prunekd.Loader(store, "train", subset=half, batch_size=256, size=224, device="cuda")
    loss_fn = prunekd.Distillation(alpha=0.9, temperature=4.0)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for epoch in range(90):
        loader.set_epoch(epoch)
        for images, labels, ids, weights in loader:
            loss: torch.Tensor = loss_fn(student(images), teacher(images), labels, weights)
            loss.backward()
            optimizer.step()
            print(ids.shape)


def train_by_recipe(store: prunekd.Store, half: prunekd.Subset, folder: Path) -> prunekd.Sweep:
    """The trainer, with soft labels, and a sweep with its report."""
    labels: prunekd.CachedTeacher = prunekd.make_labels(store, "teacher", recipe="imagenet", out=folder / "labels")
    run: prunekd.Run = prunekd.train(
        store, recipe="imagenet", settings={"epochs": 30, "optimizer.lr": 0.1}, subset=half, labels=labels,
        out=folder / "student",
    )  # fmt: skip
    print(run.path, run.top1)
    sweep: prunekd.Sweep = prunekd.run_sweep("study.yaml", store, out=folder / "sweep")
    prunekd.report(sweep, folder / "report.html")
    return sweep
