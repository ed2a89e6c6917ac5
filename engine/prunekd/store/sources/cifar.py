"""The source `cifar`: CIFAR-10 and CIFAR-100 as they are downloaded, in the binary or the Python version.

Both versions give the same ids, keys, labels and pixels. The batches of the Python version are pickles; see
`safe_pickle` for how they are read without running anything that stands in them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunekd.store.format.store import SourceDescription
from prunekd.store.sources.labels import number_labels
from prunekd.store.sources.packed import stamp_files
from prunekd.store.sources.safe_pickle import Pixels, load_plain
from prunekd.store.sources.source import UnreadableImage

_PIXELS = 3 * 32 * 32
_MAX_BYTES = 1 << 30  # of one file


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """One of the four folders.

    Attributes:
        batches: file names by split.
        suffix: of these files.
        names: the file with the names of the classes, and, in a pickle, the entry that holds them.
        label: the byte of a record that is the label, of `label_bytes`; in a pickle, the entry.
    """

    batches: Mapping[str, tuple[str, ...]]
    suffix: str
    names: tuple[str, str]
    label: tuple[int, str]
    label_bytes: int


_TEN = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "val": ("test_batch",)}
_HUNDRED = {"train": ("train",), "val": ("test",)}
LAYOUTS = {
    "cifar-10-batches-bin": _Layout(
        batches=_TEN, suffix=".bin", names=("batches.meta.txt", ""), label=(0, ""), label_bytes=1
    ),
    "cifar-10-batches-py": _Layout(
        batches=_TEN, suffix="", names=("batches.meta", "label_names"), label=(0, "labels"), label_bytes=0
    ),
    "cifar-100-binary": _Layout(
        batches=_HUNDRED, suffix=".bin", names=("fine_label_names.txt", ""), label=(1, ""), label_bytes=2
    ),
    "cifar-100-python": _Layout(
        batches=_HUNDRED, suffix="", names=("meta", "fine_label_names"), label=(0, "fine_labels"), label_bytes=0
    ),
}


def recognise(path: Path) -> str:
    """Why a path is taken for this source; empty if it is not."""
    found = _find(path)
    return f"the files of {found[1]}" if found else ""


class Cifar:
    """The folder with the batches, or the one in which it lies (as torchvision's `root`).

    CIFAR-100 is labelled with its 100 fine classes. Samples are numbered in the order of the batches, `val` is the test
    set, and the key of a sample is its batch and its number there.

    Raises:
        ValueError: no such folder, a batch missing or damaged, or a pickle that holds more than plain values.
    """

    kind = "cifar"

    def __init__(self, path: Path) -> None:
        self.path, self.ignored = path, dict[str, int]()
        found = _find(path)
        if found is None:
            raise ValueError(f"{path} holds none of {', '.join(LAYOUTS)}")
        self._folder, name = found
        self._layout = LAYOUTS[name]
        self.splits: tuple[str, ...] = tuple(self._layout.batches)
        names = _names(self._folder, self._layout)
        parts = {split: [self._batch(batch) for batch in batches] for split, batches in self._layout.batches.items()}
        self._counts = {split: [len(labels) for labels, _ in parts[split]] for split in parts}
        self._images = {split: [images for _, images in parts[split]] for split in parts}
        stated = {split: [int(v) for labels, _ in parts[split] for v in labels] for split in parts}
        self.classes, self._labels = number_labels(path, stated, names)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(labels)}" for split, labels in self._labels.items())
        return f"Cifar({str(self.path)!r}, {len(self.classes)} classes, {sizes})"

    def __reduce__(self) -> tuple[type["Cifar"], tuple[Path]]:
        return Cifar, (self.path,)  # another process reads the files itself

    def keys(self, split: str) -> list[str]:
        batches = zip(self._layout.batches[split], self._counts[split], strict=True)
        return [f"{batch}/{number:05d}" for batch, count in batches for number in range(count)]

    def labels(self, split: str) -> np.ndarray:
        return self._labels[split]

    def read(self, split: str, index: int) -> np.ndarray:
        for images in self._images[split]:
            if index < len(images):
                return np.ascontiguousarray(images[index].reshape(3, 32, 32).transpose(1, 2, 0))
            index -= len(images)
        raise UnreadableImage(f"there is no image {index} behind the last one")

    def stamp(self, split: str, start: int, stop: int) -> str:
        return stamp_files(self._folder / f"{batch}{self._layout.suffix}" for batch in self._layout.batches[split])

    def describe(self) -> SourceDescription:
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for split in self.splits:
            digest.update(f"\0{split} {self._counts[split]}\0".encode() + self._labels[split].astype("<i8").tobytes())
        return {"kind": self.kind, "path": str(self.path), "listing": digest.hexdigest()}

    def _batch(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels, integers (n,), and pixels, uint8 (n, 3072), channel by channel, of one file."""
        path = self._folder / f"{name}{self._layout.suffix}"
        number, entry = self._layout.label
        if self._layout.suffix:
            size, record = _size(path), self._layout.label_bytes + _PIXELS
            if size == 0 or size % record:
                raise ValueError(f"{path} has {size} bytes, not a multiple of {record}; download it again")
            records = np.fromfile(path, np.uint8).reshape(-1, record)  # mapped, lost storage would kill the process
            return np.array(records[:, number]), records[:, -_PIXELS:]
        values = _pickle(path)
        labels, pixels = values.get(entry), values.get("data")
        if not isinstance(pixels, Pixels) or not isinstance(labels, list):
            raise ValueError(f"{path} lacks the list {entry!r} or the array 'data'; download it again")
        images = pixels.array(path)
        if images.shape != (len(labels), _PIXELS) or not labels or not all(type(label) is int for label in labels):
            raise ValueError(f"{path} holds {len(labels)} labels and pixels {images.shape}; download it again")
        return np.array([min(max(label, -1), 255) for label in labels]), images


def _find(path: Path) -> tuple[Path, str] | None:
    """The folder with the batches and the name of its layout; a layout is known by its first batch."""
    for name, layout in LAYOUTS.items():
        for folder in (path / name, path):
            first = folder / f"{layout.batches['train'][0]}{layout.suffix}"
            if first.is_file() and (folder / layout.names[0]).is_file():
                return folder, name
    return None


def _names(folder: Path, layout: _Layout) -> list[str]:
    path = folder / layout.names[0]
    if layout.suffix:
        _size(path)
        names = path.read_bytes().decode("utf-8", "replace").split()
    else:
        found = _pickle(path).get(layout.names[1])
        names = [str(name) for name in found] if isinstance(found, list) else []
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path} holds no list of different names of classes; download it again")
    return names


def _pickle(path: Path) -> dict[str, object]:
    _size(path)
    values = load_plain(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not the entries of a batch; download it again")
    return {str(key): value for key, value in values.items()}


def _size(path: Path) -> int:
    if not path.is_file():
        raise ValueError(f"{path} is missing; download it again")
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{path} has {size} bytes, more than any file of CIFAR; download it again")
    return size
