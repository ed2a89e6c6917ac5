"""A source whose inputs are pieces of a few large files, such as the members of tar archives."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prunekd.store.format.store import SourceDescription
from prunekd.store.sources.imagefolder import MAX_FILE_BYTES
from prunekd.store.sources.layout import DEFAULT, Layout
from prunekd.store.sources.source import UnreadableImage
from prunekd.store.sources.tars import Member, read_extent


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """The inputs of a split, in canonical order; arrays are (n,).

    Attributes:
        keys: unique names.
        labels: int64.
        files: the large files.
        numbers: int32, which of them holds an input.
        offsets, sizes: int64, where in it, in bytes.
        refused: by position, why an input is not to be read.
    """

    keys: Sequence[str]
    labels: np.ndarray
    files: tuple[Path, ...]
    numbers: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    refused: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes:
        """The bytes of one input."""
        if index in self.refused:
            raise UnreadableImage(self.refused[index])
        size = int(self.sizes[index])
        if size > MAX_FILE_BYTES:
            raise UnreadableImage(f"the member has {size} bytes; more than {MAX_FILE_BYTES} are not read")
        return read_extent(self.files[self.numbers[index]], int(self.offsets[index]), size)

    def stamp(self, start: int, stop: int) -> str:
        """See Source.stamp."""
        return stamp_files(self.files[number] for number in np.unique(self.numbers[start:stop]).tolist())

    def update(self, digest: "hashlib._Hash") -> None:
        """Add everything that says which inputs these are to a digest."""
        digest.update("\0".join((str(len(self)), *self.keys)).encode(errors="surrogateescape"))
        for values in (self.labels, self.numbers, self.offsets, self.sizes):
            digest.update(values.astype("<i8").tobytes())


@dataclass(kw_only=True)
class PiecesBuilder:
    """Collects the members of one split, in canonical order."""

    files: tuple[Path, ...]
    keys: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)

    def add(self, key: str, label: int, number: int, member: Member) -> None:
        """Add a member of `files[number]`."""
        if member.problem:
            self.refused[len(self.keys)] = member.problem
        self.keys.append(key)
        self.labels.append(label)
        self.places.append((number, member.offset, member.size))

    def build(self) -> Pieces:
        """All that was added."""
        places = np.array(self.places, dtype=np.int64).reshape(-1, 3)
        return Pieces(
            keys=self.keys,
            labels=np.array(self.labels, dtype=np.int64),
            files=self.files,
            numbers=places[:, 0].astype(np.int32),
            offsets=places[:, 1].copy(),
            sizes=places[:, 2].copy(),
            refused=self.refused,
        )


class Packed:
    """The Source made of such pieces. It holds no open files and can be sent to other processes."""

    def __init__(
        self,
        kind: str,
        path: Path,
        classes: Sequence[str],
        pieces: Mapping[str, Pieces],
        ignored: Mapping[str, int],
        layout: Layout = DEFAULT,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.kind, self.path, self._layout, self.notes = kind, path, layout, notes
        self.classes: tuple[str, ...] = tuple(classes)
        self.splits: tuple[str, ...] = tuple(pieces)
        self.ignored = dict(sorted(ignored.items()))
        self._pieces = dict(pieces)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(pieces)}" for split, pieces in self._pieces.items())
        return f"Packed({self.kind!r}, {str(self.path)!r}, {len(self.classes)} classes, {sizes})"

    def keys(self, split: str) -> Sequence[str]:
        return self._pieces[split].keys

    def labels(self, split: str) -> np.ndarray:
        return self._pieces[split].labels

    def read(self, split: str, index: int) -> bytes:
        return self._pieces[split].read(index)

    def stamp(self, split: str, start: int, stop: int) -> str:
        return self._pieces[split].stamp(start, stop)

    def describe(self) -> SourceDescription:
        digest = hashlib.sha256("\0".join(self.classes).encode(errors="surrogateescape"))
        for split in self.splits:
            digest.update(f"\0{split}\0".encode())
            self._pieces[split].update(digest)
        description: SourceDescription = {"kind": self.kind, "path": str(self.path), "listing": digest.hexdigest()}
        return description | {"layout": self._layout.says} if self._layout.says else description


def stamp_files(paths: Iterable[Path]) -> str:
    """A digest of sizes and times of the last change."""
    digest = hashlib.sha256()
    for path in paths:
        info = os.stat(path)
        digest.update(f"{info.st_size} {info.st_mtime_ns}\n".encode())
    return digest.hexdigest()
