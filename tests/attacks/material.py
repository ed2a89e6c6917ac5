"""What the attacks start from: a tiny dataset, everything made of it, and one command for each writer."""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from attacks.children import Fault, call, load, run

RECIPE = """\
model: {name: cifar_resnet8}
epochs: 2
batch_size: 8
precision: fp32
mean: [0.5, 0.5, 0.5]
std: [0.5, 0.5, 0.5]
train_view: {kind: random_resized_crop, size: 8, scale: [0.7, 1.0], ratio: [0.9, 1.1], flip: 0.0}
eval_view: {kind: center, size: 8, crop_ratio: 1.0}
optimizer: {name: sgd, lr: 0.1, weight_decay: 5.0e-4}
schedule: {name: cosine, warmup: 0.1}
distill: {alpha: 0.5, temperature: 4.0}
eval: {every_epochs: 1, batch_size: 8}
checkpoint: {every_steps: 1}
"""


@dataclass(frozen=True, slots=True)
class Writer:
    """A command that writes `out/NAME`.

    Attributes:
        words: its words; `@NAME` stands for a file of the material.
        again: words to add when it is given again after it was stopped.
    """

    words: str
    again: str = ""


WRITERS = {
    "convert": Writer("convert @photos out/store --workers 1"),
    "compact": Writer("compact @store --subset @half.parquet --out out/compacted"),
    "score": Writer("score @store --teacher @teacher --workers 1 --teacher-precision fp32 --teacher-compile off "
                    "--device cpu --scores all --features out/features.npy --out out/scores.parquet"),
    "select": Writer("select @store --policy medium --scores @scores.parquet --keep 0.5 --out out/half.parquet"),
    "labels": Writer("labels @store --teacher @teacher --recipe @recipe.yaml --views 2 --workers 1 --batch-size 8 "
                     "--teacher-precision fp32 --teacher-compile off --device cpu --out out/labels"),
    "train": Writer("train @store --recipe @recipe.yaml --subset @half.parquet --track aum --workers 1 --device cpu "
                    "--out out/run", "--resume auto"),
    "bench": Writer("bench @store --recipe @recipe.yaml --teacher @teacher --keep 1,0.5 --arms plain,kd --workers 1 "
                    "--set epochs=1 --teacher-precision fp32 --teacher-compile off --device cpu --out out/sweep"),
    "export": Writer("export @store --subset @half.parquet --format folder --out out/folder"),
    "records": Writer("export @store --subset @half.parquet --format tfrecord --out out/records"),
    "report": Writer("report @sweep --out out/report.html"),
}  # fmt: skip


def words(text: str, material: Path) -> list[str]:
    """The words of a command, with the paths of the material put in."""
    return [str(material / word[1:]) if word.startswith("@") else word for word in text.split()]


def open_material(folder: Path) -> Path:
    """Make the material in `folder` with the commands themselves, unless it is there; returns `folder`.

    What computes no gradients runs in this process, which warms it up for the children to come.
    """
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    load()
    if (folder / "ready").exists():
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, "out").mkdir()
            for name in ("convert", "score", "labels", "report"):
                call(words(WRITERS[name].words, folder), Path(scratch))
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _photos(folder / "photos")
    (folder / "recipe.yaml").write_text(RECIPE)
    lines = {name: words(writer.words.replace("out/", ""), folder) for name, writer in WRITERS.items()}
    call(lines["convert"], folder)
    _train(folder, "teacher")
    for name in ("score", "select", "labels"):
        call(lines[name], folder)
    done = run(lines["bench"], folder)
    if done.code != 0:
        raise RuntimeError(done.errors)
    call(lines["report"], folder)
    _stop_half_way(folder)
    (folder / "ready").touch()
    return folder


def _train(folder: Path, name: str, fault: Fault | None = None) -> tuple[str, ...]:
    """Train the run `name`; the operations seen."""
    line = words(f"train @store --recipe @recipe.yaml --workers 1 --device cpu --out {name}", folder)
    done = run(line, folder, fault or Fault(at=0, act="kill", folder=folder / name))
    if done.code != 0 and fault is None:
        raise RuntimeError(done.errors)
    return done.operations


def _stop_half_way(folder: Path) -> None:
    """Leave a run in `folder/stopped` that was killed when it held two checkpoints, for --resume."""
    known = _train(folder, "stopped")
    shutil.rmtree(folder / "stopped")
    saved = [number for number, text in enumerate(known, 1) if re.fullmatch(r"os.rename .*/\.step-\d+\.tmp", text)]
    _train(folder, "stopped", Fault(at=saved[2], act="kill", folder=folder / "stopped"))


def _photos(folder: Path) -> None:
    """Two classes of 8 x 8 images, 12 for training and 4 for validation each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label in range(2):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(80 + 90 * label, 25, (8, 8, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number:02}.png")
