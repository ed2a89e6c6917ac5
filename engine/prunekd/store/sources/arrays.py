"""The source `arrays`: images and labels as NumPy arrays in one `.npz` file."""

import hashlib
import math
import os
import threading
import zipfile
from pathlib import Path

import numpy as np

from prunekd.store.format.store import SourceDescription

_LAYOUT = "(n, h, w), (n, h, w, 1) or (n, h, w, 3)"


class Arrays:
    """An `.npz` with `train_images`, `train_labels` and, as validation, `val_...` or `test_...`.

    Images are uint8 of shape (n, h, w), (n, h, w, 1) or (n, h, w, 3), labels integers (n,) or (n, 1). `classes`, if it
    is there, names the labels; else they are named by their numbers. The key of an image is its number in its array.
    The images of a split are held in memory from the first one read. Nothing pickled is loaded.

    Raises:
        ValueError: an array is missing, has the wrong shape or type, or a label of `val` is none of `train`'s.
    """

    kind = "arrays"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ignored: dict[str, int] = {}
        with _open(path) as archive:
            self._names = _split_names(path, archive, self.ignored)
            self._labels = {split: _labels(path, archive, name) for split, name in self._names.items()}
            for split, name in self._names.items():
                _check_images(path, archive, name, len(self._labels[split]))
            self.classes: tuple[str, ...] = _classes(path, archive, self._labels)
        self.splits: tuple[str, ...] = tuple(self._names)
        self._images: dict[str, np.ndarray] = {}
        self._loading = threading.Lock()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(labels)}" for split, labels in self._labels.items())
        return f"Arrays({str(self.path)!r}, {len(self.classes)} classes, {sizes})"

    def __reduce__(self) -> tuple[type["Arrays"], tuple[Path]]:
        return Arrays, (self.path,)  # another process reads the file itself

    def keys(self, split: str) -> list[str]:
        name = self._names[split]
        return [f"{name}/{index:07d}" for index in range(len(self._labels[split]))]

    def labels(self, split: str) -> np.ndarray:
        return self._labels[split]

    def read(self, split: str, index: int) -> np.ndarray:
        with self._loading:
            if split not in self._images:
                with _open(self.path) as archive:
                    images = _load(self.path, archive, f"{self._names[split]}_images")
                self._images[split] = images if images.ndim == 4 else images[..., None]
        return self._images[split][index]

    def stamp(self, split: str, start: int, stop: int) -> str:
        info = os.stat(self.path)
        return f"{info.st_size} {info.st_mtime_ns}"

    def describe(self) -> SourceDescription:
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for split in self.splits:
            digest.update(f"\0{split} {self._names[split]}\0".encode())
            digest.update(self._labels[split].astype("<i8").tobytes())
        return {"kind": self.kind, "path": str(self.path), "listing": digest.hexdigest()}


def recognise(path: Path) -> str:
    """Why a path is taken for this source; empty if it is not."""
    return "an .npz file" if path.suffix == ".npz" else ""


def _open(path: Path) -> np.lib.npyio.NpzFile:
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the storage's; NumPy's complaints about a file's content have no number
        raise ValueError(f"{path} is not an .npz file ({error})") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} is a single array; an .npz with train_images and train_labels is needed")
    return archive


def _split_names(path: Path, archive: np.lib.npyio.NpzFile, ignored: dict[str, int]) -> dict[str, str]:
    """By split the prefix of its arrays; arrays that are not used are noted in `ignored`."""
    names = {"train": "train"}
    validation = next((name for name in ("val", "test") if f"{name}_images" in archive.files), None)
    if validation:
        names["val"] = validation
    wanted = {"classes", *(f"{name}_{part}" for name in names.values() for part in ("images", "labels"))}
    missing = sorted(wanted - set(archive.files) - {"classes"})
    if missing:
        raise ValueError(f"{path} lacks the array {missing[0]!r}; it has {', '.join(archive.files) or 'none'}")
    ignored.update({f"array {name}": 1 for name in archive.files if name not in wanted})
    return names


def _labels(path: Path, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    labels = _load(path, archive, f"{name}_labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or not len(labels):
        raise ValueError(f"{path}: {name}_labels is {labels.dtype} {labels.shape}; it must be integers (n,), n > 0")
    if labels.min() < 0 or labels.max() >= 1 << 31:
        raise ValueError(f"{path}: {name}_labels reaches from {labels.min()} to {labels.max()}; labels start at 0")
    return labels.astype(np.int64)


def _check_images(path: Path, archive: np.lib.npyio.NpzFile, name: str, count: int) -> None:
    """Check dtype and shape from the array's header, without loading it."""
    shape, dtype = _npy_header(path, archive, f"{name}_images")
    if dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape:
        hint = "; move the channels to the end" if len(shape) == 4 and shape[1] in (1, 3) else ""
        raise ValueError(f"{path}: {name}_images is {dtype} {shape}; it must be uint8 {_LAYOUT}{hint}")
    if shape[0] != count:
        raise ValueError(f"{path}: {name}_images has {shape[0]} images, but {name}_labels has {count} labels")


def _npy_header(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> tuple[tuple[int, ...], np.dtype]:
    assert archive.zip is not None
    with archive.zip.open(f"{key}.npy") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        except (ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: the array {key!r} is damaged ({error})") from None
    held = archive.zip.getinfo(f"{key}.npy").file_size
    if math.prod(shape) * dtype.itemsize > held:  # before memory is taken on the header's word
        raise ValueError(f"{path}: the array {key!r} claims the shape {shape}, but has only {held} bytes")
    return shape, dtype


def _classes(path: Path, archive: np.lib.npyio.NpzFile, labels: dict[str, np.ndarray]) -> tuple[str, ...]:
    train = labels["train"]
    if "classes" not in archive.files:
        classes = tuple(str(label) for label in range(int(train.max()) + 1))
    else:
        names = _load(path, archive, "classes")
        if names.dtype.kind not in "USiu" or names.ndim != 1:
            raise ValueError(f"{path}: classes is {names.dtype} {names.shape}; it must be a list of names")
        classes = tuple(value.decode() if isinstance(value, bytes) else str(value) for value in names.tolist())
        if len(set(classes)) < len(classes):
            raise ValueError(f"{path}: class names repeat: {classes}")
        if train.max() >= len(classes):
            raise ValueError(f"{path}: train_labels has the label {train.max()}, but there are {len(classes)} classes")
    strangers = np.setdiff1d(labels.get("val", train), np.arange(len(classes)))
    if len(strangers):
        raise ValueError(f"{path}: the validation labels have the class {strangers[0]}, which train lacks")
    return classes


def _load(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    _npy_header(path, archive, key)
    try:
        return np.asarray(archive[key])
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: the array {key!r} cannot be loaded ({error})") from None
