"""The source `imagefolder`: a folder per class, with or without `train` and `val` above."""

import hashlib
import os
import stat
from collections import Counter
from pathlib import Path

import numpy as np

from prunekd.store.format.store import SourceDescription
from prunekd.store.sources.source import UnreadableImage

# torchvision's ImageFolder takes the same ones, so that both number the images alike
EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))
MAX_FILE_BYTES = 1 << 30
_KIND = "imagefolder"


class ImageFolder:
    """`ROOT/train/CLASS/*` and `ROOT/val/CLASS/*`, or `ROOT/CLASS/*` as `train` alone.

    Classes are the folders of `train`, sorted; images lie in them at any depth. Hidden files and other extensions are
    counted in `ignored`. The key of an image is its path below its split.

    Raises:
        ValueError: no class folders, no images, or a class of `val` that `train` lacks.
    """

    kind = _KIND

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder; an image folder holds one folder per class")
        self._folders = _split_folders(path)
        self.splits: tuple[str, ...] = tuple(self._folders)
        ignored: Counter[str] = Counter()
        self.classes: tuple[str, ...] = tuple(_class_names(self._folders["train"], ignored))
        self._keys: dict[str, list[str]] = {}
        self._labels: dict[str, np.ndarray] = {}
        for split, folder in self._folders.items():
            names = self.classes if split == "train" else _class_names(folder, ignored)
            _check_classes(folder, names, self.classes)
            self._keys[split], self._labels[split] = _list_split(folder, self.classes, set(names), ignored)
            if not self._keys[split]:
                raise ValueError(f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))})")
        self.ignored = dict(sorted(ignored.items()))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(keys)}" for split, keys in self._keys.items())
        return f"ImageFolder({str(self.path)!r}, {len(self.classes)} classes, {sizes})"

    def keys(self, split: str) -> list[str]:
        return self._keys[split]

    def labels(self, split: str) -> np.ndarray:
        return self._labels[split]

    def read(self, split: str, index: int) -> bytes:
        path = self._path(split, index)
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
            raise UnreadableImage("not a regular file")
        if info.st_size > MAX_FILE_BYTES:
            raise UnreadableImage(f"the file has {info.st_size} bytes; more than {MAX_FILE_BYTES} are not read")
        with open(path, "rb") as file:
            return file.read()

    def stamp(self, split: str, start: int, stop: int) -> str:
        digest = hashlib.sha256()
        for index in range(start, stop):
            try:
                info = os.stat(self._path(split, index))
                digest.update(f"{info.st_size} {info.st_mtime_ns}\n".encode())
            except OSError as error:
                digest.update(f"{error.errno}\n".encode())
        return digest.hexdigest()

    def describe(self) -> SourceDescription:
        digest = hashlib.sha256()
        for split in self.splits:
            names = "\0".join((split, str(len(self._keys[split])), *self._keys[split]))
            digest.update(names.encode(errors="surrogateescape"))
        digest.update("\0".join(("", *self.classes)).encode(errors="surrogateescape"))
        return {
            "kind": self.kind,
            "path": str(self.path),
            "folders": {split: str(folder) for split, folder in self._folders.items()},
            "listing": digest.hexdigest(),
        }

    def _path(self, split: str, index: int) -> str:
        return os.path.join(self._folders[split], self._keys[split][index])


def recognise(path: Path) -> str:
    """Why a path is taken for this source; empty if it is not."""
    return "a folder" if path.is_dir() else ""


def has_class_folders(path: Path) -> bool:
    """Whether there are folders in `train` of a folder, so that files beside it cannot be what is meant."""
    return any(inner.is_dir() and not inner.name.startswith(".") for inner in path.glob("train/*"))


def _split_folders(root: Path) -> dict[str, Path]:
    if (root / "train").is_dir():
        folders = {"train": root / "train"}
        if (root / "val").is_dir():
            folders["val"] = root / "val"
        return folders
    if (root / "val").is_dir():
        raise ValueError(f"{root} has a folder val but none named train; name the training images train")
    return {"train": root}


def _class_names(folder: Path, ignored: Counter[str]) -> list[str]:
    """Sorted names of the class folders; counts what lies beside them."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                ignored["hidden"] += 1
            elif entry.is_dir():
                names.append(entry.name)
            else:
                ignored["outside a class folder"] += 1
    if not names:
        raise ValueError(f"{folder} holds no class folders; put the images of each class into a folder of its own")
    for name in names:
        if not is_utf8(name):
            raise ValueError(f"{folder} holds a class folder whose name {name!r} is not UTF-8; rename it")
    return sorted(names)


def _check_classes(folder: Path, names: list[str] | tuple[str, ...], classes: tuple[str, ...]) -> None:
    strangers = sorted(set(names) - set(classes))
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise ValueError(
            f"{folder} has the class {strangers[0]!r}{more}, which train lacks; remove it or add it to train"
        )


def _list_split(
    folder: Path, classes: tuple[str, ...], present: set[str], ignored: Counter[str]
) -> tuple[list[str], np.ndarray]:
    """Keys in canonical order and their labels, int64 (n,)."""
    keys: list[str] = []
    counts = []
    for name in classes:
        found: dict[str, list[str]] = {}
        if name in present:
            _walk(str(folder), name, (), found, ignored)
        keys.extend(f"{inner}/{file}" for inner in sorted(found) for file in sorted(found[inner]))
        counts.append(sum(map(len, found.values())))
    return keys, np.repeat(np.arange(len(classes), dtype=np.int64), counts)


def _walk(
    root: str, relative: str, above: tuple[tuple[int, int], ...], found: dict[str, list[str]], ignored: Counter[str]
) -> None:
    """Note the images of a folder and of those in it, by folder."""
    path = os.path.join(root, relative)
    info = os.stat(path)
    if (info.st_dev, info.st_ino) in above:
        raise ValueError(f"{path} is a link to a folder that it lies in; remove the link")
    files, folders = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            extension = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                ignored["hidden"] += 1
            elif entry.is_dir():
                folders.append(entry.name)
            elif extension in EXTENSIONS:
                files.append(entry.name)
            else:
                ignored[extension or "no extension"] += 1
    found[relative] = files
    for name in folders:
        _walk(root, f"{relative}/{name}", (*above, (info.st_dev, info.st_ino)), found, ignored)


def is_utf8(name: str) -> bool:
    """Whether a file name, as the system gives it, can be written as text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
