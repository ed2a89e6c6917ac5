"""Small datasets in every layout that a source reads, made from one image folder."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def photographs(count: int, classes: int = 3, seed: int = 0) -> list[tuple[str, bytes]]:
    """(class, JPEG) of small smooth images, classes in turn."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        coarse = rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((30 + k % 50, 25 + k % 30), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        found.append((f"n0144{9 - k % classes}764", buffer.getvalue()))
    return found


def image_folder(root: Path, count: int = 12, classes: int = 3) -> Path:
    """Names as ILSVRC2012's: `train/SYNSET/SYNSET_NUMBER.JPEG`, `val/SYNSET/ILSVRC2012_val_*.JPEG`."""
    for split, seed in (("train", 0), ("val", 1)):
        for k, (synset, data) in enumerate(photographs(count, classes, seed), start=1):
            # numbers of unequal length, whose order as text is not that as numbers
            name = f"{synset}_{k * k}.JPEG" if split == "train" else f"ILSVRC2012_val_{k:08d}.JPEG"
            path = root / split / synset / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def add_bytes(tar: tarfile.TarFile, name: str, data: bytes, **header: object) -> None:
    """Append a member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in header.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def tar_bytes(files: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar archive of these files in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in files.items():
            add_bytes(tar, name, data)
    return buffer.getvalue()


def ilsvrc_archives(folder: Path, target: Path, form: int = tarfile.GNU_FORMAT) -> Path:
    """The archives of ILSVRC2012 for an image folder, members in no order, and a table of the validation labels."""
    target.mkdir(parents=True, exist_ok=True)
    outer = {}
    for synset in sorted((folder / "train").iterdir(), reverse=True):
        files = {file.name: file.read_bytes() for file in sorted(synset.iterdir(), key=lambda file: file.name[::-1])}
        outer[f"{synset.name}.tar"] = tar_bytes(files, form)
    (target / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(outer, form))
    images = sorted((folder / "val").rglob("*.JPEG"), key=lambda file: file.name)
    inner = {file.name: file.read_bytes() for file in images}
    (target / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes(inner, form))
    table = "".join(f"{file.name},{file.parent.name}\n" for file in images)
    (target / "val_labels.csv").write_text(table)
    return target
