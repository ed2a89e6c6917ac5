"""`prunekd demo`."""

import shlex
from pathlib import Path

import click
import numpy as np

from prunekd.cli._shared import say

VALIDATION_SHARE = 0.2
BUSY_SHARE = 0.25  # of the cores


@click.command("demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="demo",
    show_default=True,
    help="Folder for everything the demo makes; it goes on where a stopped demo ended.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs per point.")
def command(out: Path, seeds: int) -> None:
    """Run the whole pipeline on real handwritten digits, in a few minutes on two cores.

    Every step is printed as the command that does it alone.

    \b
    Example:
      prunekd demo --out demo
    """
    _tell_if_busy()
    out.mkdir(parents=True, exist_ok=True)
    digits, store, teacher, scores = out / "digits.npz", out / "store", out / "teacher", out / "scores.parquet"
    subset, sweep, page = out / "medium.parquet", out / "sweep", out / "report.html"
    if not digits.exists():
        _write_digits(digits)
    if not store.exists():
        _run("convert", digits, store)
    _run("train", store, "--recipe", "demo", "--set", "model.name=cifar_resnet20", "--out", teacher, "--resume", "auto")
    if not scores.exists():
        _run("score", store, "--teacher", teacher, "--out", scores)
    if not subset.exists():
        _run("select", store, "--policy", "medium", "--scores", scores, "--keep", 0.5, "--out", subset)
    _run("inspect", subset, "--store", store, "--scores", scores, "--out", out / "medium.png")
    grid = ["--keep", "1,0.5,0.25,0.1", "--policies", "random,medium", "--arms", "plain,kd,equal_time"]
    _run(
        "bench", store, "--recipe", "demo", "--teacher", teacher, "--scores", scores, *grid,
        "--seeds", seeds, "--out", sweep,
    )  # fmt: skip
    _run("report", sweep, "--out", page)


def _tell_if_busy() -> None:
    """Say before the first epoch, which takes longest to show anything, that others slow it down."""
    from prunekd.common.machine import available_cores, busy_cores

    busy, cores = busy_cores(), available_cores()
    if busy > BUSY_SHARE * cores:
        say(
            f"Other processes keep {busy:.1f} of {cores} cores busy: the demo takes longer than a few minutes, its "
            "first epoch most of all, and its speed-ups are less certain. For times that count, use a quiet machine."
        )


def _write_digits(path: Path) -> None:
    """Write scikit-learn's 1,797 handwritten digits (8 x 8, UCI ML repository) as an `arrays` source."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    held_out = int(VALIDATION_SHARE * len(images))
    val, train = order[:held_out], order[held_out:]
    np.savez(
        path,
        train_images=images[train],
        train_labels=digits.target[train],
        val_images=images[val],
        val_labels=digits.target[val],
        classes=np.array([str(name) for name in digits.target_names]),
    )


def _run(*words: object) -> None:
    from prunekd.cli import main

    arguments = [str(word) for word in words]
    say(f"\n$ prunekd {shlex.join(arguments)}")
    main(arguments, standalone_mode=False)
