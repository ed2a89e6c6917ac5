"""What the examples share: store, subset, seed, a trained teacher, a small student, and a record of the ids seen."""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from prunekd import Loader, Store, Subset, convert, open_store, select
from prunekd.input import ViewSettings

SEED = 0
BATCH_SIZE = 32  # of all processes together
VIEW = ViewSettings(kind="random_resized_crop", size=16, scale=(0.7, 1.0), ratio=(0.9, 1.1), flip=0.0)  # for digits


def options(description: str | None) -> argparse.Namespace:
    """The command line's `store` (None for handwritten digits), `epochs` and `ids`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store made by `prunekd convert`; default: handwritten digits")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--ids", type=Path, help="write the sample ids of every training batch to this JSON file")
    return parser.parse_args()


def store_and_half(path: Path | None) -> tuple[Store, Subset]:
    """A store, and a random half of its training samples, the same in every process and example."""
    store = digits_store(Path(tempfile.mkdtemp())) if path is None else open_store(path)
    return store, select(store, "random", keep=0.5, seed=SEED)


def digits_store(folder: Path) -> Store:
    """Convert scikit-learn's 1,797 handwritten digits of 8 x 8 pixels."""
    digits = load_digits()
    images = (digits.images * 255 / 16).astype(np.uint8)[..., None].repeat(3, axis=3)
    arrays = {"train_images": images[:1400], "val_images": images[1400:], "classes": digits.target_names.astype(str)}
    labels = {"train_labels": digits.target[:1400], "val_labels": digits.target[1400:]}
    np.savez(folder / "digits.npz", **arrays, **labels)
    return convert(folder / "digits.npz", folder / "store")


def small_network(classes: int, width: int = 16) -> nn.Module:
    """Images (B, 3, H, W) -> logits (B, classes)."""
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1)]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * width, classes))


def trained_teacher(store: Store, device: str | torch.device) -> nn.Module:
    """A wider network, trained on all training samples for a few epochs, frozen; the same in every process."""
    torch.manual_seed(SEED)
    teacher = small_network(len(store.classes), width=32).to(device)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    with Loader(store, batch_size=BATCH_SIZE, view=VIEW, device=device, rank=0, world_size=1) as loader:
        for _ in range(4):
            for images, labels, _, _ in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(teacher(images), labels).backward()
                optimizer.step()
    return teacher.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(predict: Callable[[Tensor], Tensor], store: Store, device: str | torch.device) -> float:
    """Share of the validation split that a network's logits get right."""
    with Loader(store, "val", batch_size=256, size=VIEW.size, device=device, rank=0, world_size=1) as loader:
        right = sum(int((predict(images).argmax(1) == labels).sum()) for images, labels, _, _ in loader)
        return right / len(loader.ids)


class Seen(list[list[int]]):
    """The ids of every batch of a process, for `--ids`."""

    def save(self, path: Path | None, rank: int = 0) -> None:
        """Write them as JSON; processes other than the first add their rank to the file's name."""
        if path is not None:
            (path if rank == 0 else path.with_suffix(f".{rank}.json")).write_text(json.dumps(self))
