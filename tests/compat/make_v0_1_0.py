"""Write one of everything that prunekd keeps on disk. Run with prunekd 0.1.0, not with a later one:

    cd tests/compat && PYTHONPATH=$OLD/engine:$OLD/kernels python make_v0_1_0.py

The files are made in /tmp/prunekd-0.1.0, with relative paths as on a user's command lines, and packed into
`v0_1_0.tar.xz`. `expected.json` among them says what 0.1.0 itself reads in them.

    digits.npz, store/     raw images of 12 x 12 pixels, 96 + 32 in 4 classes
    photos/, photo-store/  JPEG files, byte for byte and, where larger than 48 pixels, encoded again
    small-store/           store, compacted to medium.parquet
    teacher/, run/         finished runs; run/ distils, with an average of the weights and training dynamics
    stopped/               as run/, ended by SIGTERM in the middle of an epoch
    scores.parquet, medium.parquet, random.parquet
    labels-full/, labels-top/
    sweep/                 two arms at two keep ratios
"""

import json
import os
import platform
import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np
import tiny_model
from PIL import Image
from prunekd.store.index import open_store

import prunekd
from prunekd.cli import main
from prunekd.pruning import read_subset
from prunekd.pruning.scores import read_scores

HOME = Path("/tmp/prunekd-0.1.0")
ARCHIVE = Path(__file__).with_name("v0_1_0.tar.xz")
SIZES = ((24, 24), (40, 32), (64, 64), (33, 57))  # pixels, wide and high

SETTINGS = (
    f"model.name={tiny_model.NAME}", "epochs=4", "precision=fp32", "checkpoint.keep_last=1", "eval.every_epochs=2",
    "train_view.size=12", "eval_view.size=12", "batch_size=16",
)  # fmt: skip
DISTILLED = (
    "store", "--recipe", "demo", "--subset", "medium.parquet", "--teacher", "teacher", "--teacher-precision", "fp32",
    "--teacher-compile", "off", "--reshape", "scores.parquet", "--track", "all",
)  # fmt: skip


def run(*words: object) -> None:
    main([str(word) for word in words], standalone_mode=False)


def settings(*more: str) -> list[str]:
    return [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]


def write_digits(path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.integers(40, 216, size=(4, 1, 1, 3))

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 4
        # coarse noise, so that the archive is small
        noise = rng.integers(-2, 3, size=(count, 12, 12, 3)) * 12
        return np.clip(centres[labels] + noise, 0, 255).astype(np.uint8), labels

    (train, train_labels), (val, val_labels) = images(96), images(32)
    np.savez(
        path, train_images=train, train_labels=train_labels, val_images=val, val_labels=val_labels,
        classes=np.array(["amber", "blue", "coral", "green"]),
    )  # fmt: skip


def write_photos(folder: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for k, (width, height) in enumerate(SIZES):
            coarse = rng.integers(0, 256, size=(4, 4, 3)).astype(np.uint8)
            image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            image.save(folder / name / f"{k}.jpg", quality=80)


def payloads(path: str) -> dict[str, list[list[int]]]:
    """By split: id, label and CRC-32 of the payload as it is read, in the order of the file."""
    found = {}
    for name, split in open_store(path).splits.items():
        with split.payloads() as reader:
            crcs = [zlib.crc32(reader.read(row)) for row in range(len(split))]
        found[name] = [list(row) for row in zip(split.ids.tolist(), split.labels.tolist(), crcs, strict=True)]
    return found


def write_all() -> None:
    write_digits(Path("digits.npz"))
    write_photos(Path("photos"))
    run("convert", "digits.npz", "store")
    run("convert", "photos", "photo-store", "--max-side", 48, "--val-fraction", 0.25)
    run("train", "store", "--recipe", "demo", *settings(), "--out", "teacher")
    run("score", "store", "--teacher", "teacher", "--out", "scores.parquet", "--teacher-compile", "off")
    run("select", "store", "--policy", "medium", "--scores", "scores.parquet", "--keep", 0.5, "--out", "medium.parquet")
    run("select", "store", "--policy", "random", "--seed", 3, "--keep", 0.25, "--out", "random.parquet")
    run("compact", "store", "--subset", "medium.parquet", "--out", "small-store")
    teacher = ("--teacher", "teacher", "--recipe", "demo", "--teacher-compile", "off", "--teacher-precision", "fp32")
    run("labels", "store", *teacher, *settings(), "--views", 2, "--out", "labels-full")
    run("labels", "store", *teacher, *settings(), "--views", 2, "--topk", 2, "--out", "labels-top")
    run("train", *DISTILLED, *settings("ema.decay=0.9"), "--out", "run")
    tiny_model.TinyModel.stop_at = 5  # of 3 steps in each of 4 epochs
    try:
        run("train", *DISTILLED, *settings("ema.decay=0.9"), "--out", "stopped")
    except BaseException as error:
        print(f"stopped: {error!r}")
    tiny_model.TinyModel.stop_at = None
    run(
        "bench", "store", "--recipe", "demo", "--teacher", "teacher", *settings(), "--keep", "1,0.5",
        "--arms", "plain,kd", "--teacher-compile", "off", "--out", "sweep",
    )  # fmt: skip


def expected() -> dict[str, object]:
    scores = read_scores(Path("scores.parquet"))
    subsets = {name: read_subset(Path(f"{name}.parquet")) for name in ("medium", "random")}
    return {
        "version": prunekd.__version__,
        "payloads": {name: payloads(name) for name in ("store", "photo-store", "small-store")},
        "fingerprints": {name: open_store(name).fingerprint for name in ("store", "photo-store", "small-store")},
        "scores": {name: values.astype(float).tolist() for name, values in scores.columns.items()},
        "definitions": scores.definitions,
        "subsets": {name: {"ids": s.ids.tolist(), "info": dict(s.info)} for name, s in subsets.items()},
    }


def pack() -> None:
    for name in ("tensorboard", "logs"):
        for folder in HOME.rglob(name):
            shutil.rmtree(folder)
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for item in sorted(HOME.iterdir()):
            archive.add(item, item.name, filter=anonymous)


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the name of whoever made it."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    if prunekd.__version__ != "0.1.0":
        raise SystemExit(f"this is prunekd {prunekd.__version__}; the files must be written by prunekd 0.1.0")
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    os.chdir(HOME)
    platform.platform = lambda: "Linux"  # which machine it was does not matter
    write_all()
    Path("expected.json").write_text(json.dumps(expected()))
    pack()
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size / 1024:.0f} KiB")
