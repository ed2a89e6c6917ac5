"""The source `imagefolder`: a folder per class, with or without `train` and `val` above."""

import hashlib
import os
import stat
from collections import Counter
from errno import EACCES
from pathlib import Path

import numpy as np

from prunekd.store.format.store import SourceDescription
from prunekd.store.sources.faults import Roots
from prunekd.store.sources.layout import DEFAULT, HERE, Layout
from prunekd.store.sources.source import UnreadableImage
from prunekd.store.sources.split_folders import check_no_splits_below, is_folder, split_folders

# torchvision's ImageFolder takes the same ones, so that both number the images alike
EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))
MAX_FILE_BYTES = 1 << 30
_KIND = "imagefolder"


class ImageFolder:
    """`ROOT/train/CLASS/*` and `ROOT/val/CLASS/*`, or `ROOT/CLASS/*` as `train` alone.

    Folders of splits have one of the usual names (ROLES), or the one that `layout` says; `test` is the validation split
    where nothing is named `val`. Classes are the folders of `train`, sorted; images lie in them at any depth. Hidden
    files, other extensions and folders beside the splits are counted in `ignored`. The key of an image is its path
    below its split.

    Raises:
        ValueError: no class folders, no images, a class of `val` that `train` lacks, or names that leave open which
            folder is which split.
        OSError: a folder cannot be listed.
    """

    kind = _KIND

    def __init__(self, path: Path, layout: Layout = DEFAULT) -> None:
        self.path, self._layout = path, layout
        if not path.is_dir():
            raise ValueError(f"{path} is not a folder; an image folder holds one folder per class")
        ignored: Counter[str] = Counter()
        self._folders, self.notes = split_folders(path, layout, ignored)
        self._roots = Roots({path, *self._folders.values()})
        self.splits: tuple[str, ...] = tuple(self._folders)
        self.classes: tuple[str, ...] = tuple(_class_names(self._folders["train"], ignored))
        self._keys: dict[str, list[str]] = {}
        self._labels: dict[str, np.ndarray] = {}
        for split, folder in self._folders.items():
            names = self.classes if split == "train" else _class_names(folder, ignored)
            _check_classes(folder, names, self.classes)
            above = layout.train_split != HERE
            self._keys[split], self._labels[split] = _list_split(folder, self.classes, set(names), ignored, above)
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
        try:
            return _read_file(path)
        except OSError as error:
            raise UnreadableImage(self._roots.reason(path, error)) from None

    def stamp(self, split: str, start: int, stop: int) -> str:
        digest = hashlib.sha256()
        for index in range(start, stop):
            path = self._path(split, index)
            try:
                info = os.stat(path)
                digest.update(f"{info.st_size} {info.st_mtime_ns}\n".encode())
            except OSError as error:
                digest.update(f"{self._roots.reason(path, error)}\n".encode())
        return digest.hexdigest()

    def describe(self) -> SourceDescription:
        digest = hashlib.sha256()
        for split in self.splits:
            names = "\0".join((split, str(len(self._keys[split])), *self._keys[split]))
            digest.update(names.encode(errors="surrogateescape"))
        digest.update("\0".join(("", *self.classes)).encode(errors="surrogateescape"))
        description: SourceDescription = {
            "kind": self.kind,
            "path": str(self.path),
            "folders": {split: str(folder) for split, folder in self._folders.items()},
            "listing": digest.hexdigest(),
        }
        return description | {"layout": self._layout.says} if self._layout.says else description

    def _path(self, split: str, index: int) -> str:
        return os.path.join(self._folders[split], self._keys[split][index])


def _read_file(path: str) -> bytes:
    info = os.stat(path)
    if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
        raise UnreadableImage("not a regular file")
    if info.st_size > MAX_FILE_BYTES:
        raise UnreadableImage(f"the file has {info.st_size} bytes; more than {MAX_FILE_BYTES} are not read")
    with open(path, "rb") as file:
        return file.read()


def recognise(path: Path) -> str:
    """Why a path is taken for this source; empty if it is not."""
    return "a folder" if path.is_dir() else ""


def has_class_folders(path: Path) -> bool:
    """Whether there are folders in `train` of a folder, so that files beside it cannot be what is meant."""
    return any(inner.is_dir() and not inner.name.startswith(".") for inner in path.glob("train/*"))


def _class_names(folder: Path, ignored: Counter[str]) -> list[str]:
    """Sorted names of the class folders; counts what lies beside them."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                ignored["hidden"] += 1
            elif is_folder(entry):
                names.append(entry.name)
            else:
                ignored["outside a class folder"] += 1
    if not names:
        raise ValueError(
            f"{folder} holds no class folders; put the images of each class into a folder of its own, or say what the "
            "folders are: --train-split . if each is a class, --val-split none to leave a validation split out"
        )
    for name in names:
        if not is_utf8(name):
            raise ValueError(f"{folder} holds a class folder whose name {name!r} is not UTF-8; rename it")
    return sorted(names)


def _check_classes(folder: Path, names: list[str] | tuple[str, ...], classes: tuple[str, ...]) -> None:
    strangers = sorted(set(names) - set(classes))
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise ValueError(
            f"{folder} has the class {strangers[0]!r}{more}, which train lacks; remove it, add it to train, or leave "
            "the split out with --val-split none"
        )


def _list_split(
    folder: Path, classes: tuple[str, ...], present: set[str], ignored: Counter[str], splits_above: bool
) -> tuple[list[str], np.ndarray]:
    """Keys in canonical order and their labels, int64 (n,); with `splits_above`, classes must not hold splits."""
    keys: list[str] = []
    counts = []
    for name in classes:
        found: dict[str, list[str]] = {}
        if name in present:
            _walk(str(folder), name, (), found, ignored)
            if splits_above:
                check_no_splits_below(folder / name, {inner.split("/")[1] for inner in found if "/" in inner})
        keys.extend(f"{inner}/{file}" for inner in sorted(found) for file in sorted(found[inner]))
        counts.append(sum(map(len, found.values())))
    return keys, np.repeat(np.arange(len(classes), dtype=np.int64), counts)


def _walk(
    root: str, relative: str, above: tuple[tuple[int, int], ...], found: dict[str, list[str]], ignored: Counter[str]
) -> None:
    """Note the images of a folder and of those in it, by folder."""
    path = os.path.join(root, relative)
    info = _stat_folder(path)
    if (info.st_dev, info.st_ino) in above:
        raise ValueError(f"{path} is a link to a folder that it lies in; remove the link")
    files, folders = [], []
    with os.scandir(path) as entries:
        for entry in entries:
            extension = os.path.splitext(entry.name)[1].lower()
            if entry.name.startswith("."):
                ignored["hidden"] += 1
            elif is_folder(entry):
                folders.append(entry.name)
            elif extension in EXTENSIONS:
                files.append(entry.name)
            else:
                ignored[extension or "no extension"] += 1
    found[relative] = files
    for name in folders:
        _walk(root, f"{relative}/{name}", (*above, (info.st_dev, info.st_ino)), found, ignored)


def _stat_folder(path: str) -> os.stat_result:
    try:
        if not os.access(path, os.R_OK | os.X_OK):
            raise OSError(EACCES, os.strerror(EACCES), path)
        return os.stat(path)
    except OSError as error:
        raise OSError(
            f"the folder {path} cannot be listed ({error.strerror}), so its images are not known; make it readable, or "
            "remove it"
        ) from error


def is_utf8(name: str) -> bool:
    """Whether a file name, as the system gives it, can be written as text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
