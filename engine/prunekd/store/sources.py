"""Where samples come from: one protocol, one registry, and the holding out of a validation split.

A source lists its inputs in a canonical order that fixes their sample ids: classes sorted by name, then file names. It
is described by a dictionary that is kept in the store and suffices to open the source again.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from prunekd.common.registry import unknown
from prunekd.store import arrays, cifar, ilsvrc, imagefolder, parquet, webdataset
from prunekd.store.arrays import Arrays
from prunekd.store.imagefolder import ImageFolder
from prunekd.store.shards import is_pattern, recognise_shards

TRAIN, VAL = "train", "val"
MAX_VAL_FRACTION = 0.9


class Source(Protocol):
    """Images with labels, in splits. Inputs are numbered by their position in their split."""

    @property
    def kind(self) -> str:
        """Name in SOURCES."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, by label."""

    @property
    def splits(self) -> tuple[str, ...]:
        """`("train",)` or `("train", "val")`."""

    @property
    def ignored(self) -> dict[str, int]:
        """What lies in the source and is no input, counted by kind."""

    def keys(self, split: str) -> Sequence[str]:
        """Names of the inputs, unique within the split."""

    def labels(self, split: str) -> np.ndarray:
        """Labels, int64 (n,)."""

    def read(self, split: str, index: int) -> bytes | np.ndarray:
        """One input: the bytes of an image file, or uint8 (h, w, 1 or 3). OSError where it cannot be read."""

    def stamp(self, split: str, start: int, stop: int) -> str:
        """A digest of when the inputs start..stop-1 were last changed, to see whether they still are the same."""

    def describe(self) -> dict[str, Any]:
        """Plain values from which `reopen_source` finds the source, with a digest of its listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceKind:
    """A way in which datasets lie on disk.

    Attributes:
        open: opens one; ValueError where it is malformed.
        recognise: why a path is taken for this kind, in a few words; empty if it is not.
        layout: what it looks like, for messages.
    """

    open: Callable[[Path], Source]
    recognise: Callable[[Path], str]
    layout: str


# In the order in which a path is held against them.
SOURCES = {
    "arrays": SourceKind(open=Arrays, recognise=arrays.recognise, layout="FILE.npz"),
    "ilsvrc": SourceKind(
        open=ilsvrc.open_ilsvrc, recognise=ilsvrc.recognise, layout=f"a folder with {ilsvrc.TRAIN_TAR}"
    ),
    "cifar": SourceKind(open=cifar.Cifar, recognise=cifar.recognise, layout=" or ".join(cifar.LAYOUTS)),
    "webdataset": SourceKind(
        open=webdataset.open_webdataset,
        recognise=partial(recognise_shards, suffix=".tar"),
        layout="NAME.tar, a folder or a pattern of them",
    ),
    "parquet": SourceKind(
        open=parquet.ParquetImages,
        recognise=partial(recognise_shards, suffix=".parquet"),
        layout="NAME.parquet, a folder or a pattern of them",
    ),
    "imagefolder": SourceKind(open=ImageFolder, recognise=imagefolder.recognise, layout="train/CLASS/* or CLASS/*"),
}


def open_source(path: str | Path, kind: str = "auto", val_fraction: float = 0.0) -> Source:
    """Open a dataset; with `val_fraction` hold out that part of every class as `val`.

    Args:
        path: of a file or folder; for shards also a pattern with `*`, `?`, `[...]` or `{0..9}`.
        kind: a key of SOURCES, or `auto` for the first that `recognise_source` finds.
        val_fraction: 0 to leave the splits as they are.

    Raises:
        ValueError: nothing there, an unknown kind, a malformed source, or `val_fraction` with a source that has a
            validation split already.
    """
    path = Path(path).absolute()
    _check_there(path)
    if kind == "auto":
        kind, _ = recognise_source(path)
    elif kind not in SOURCES:
        raise unknown("kind of source", kind, ("auto", *SOURCES))
    source = SOURCES[kind].open(path)
    return hold_out(source, val_fraction) if val_fraction else source


def recognise_source(path: Path) -> tuple[str, str]:
    """What kind of source a path is, and why.

    Raises:
        ValueError: it is none; the message lists what can be read.
    """
    _check_there(path)
    for name, kind in SOURCES.items():
        if reason := kind.recognise(path):
            return name, reason
    layouts = "; ".join(f"{name} ({kind.layout})" for name, kind in SOURCES.items())
    raise ValueError(f"{path} is no source that can be read: {layouts}")


def _check_there(path: Path) -> None:
    if not path.exists() and not is_pattern(path):
        raise ValueError(f"the source {path} does not exist")


def reopen_source(description: dict[str, Any]) -> Source:
    """Open the source of a store again, given what the store keeps of it.

    Raises:
        ValueError: it moved, or it no longer lists the same inputs.
    """
    path = Path(description["path"])
    if not path.exists() and not is_pattern(path):
        raise ValueError(f"the source {path} of this store is no longer there; move it back or convert it anew")
    source = open_source(path, description["kind"], description.get("val_fraction", 0.0))
    if source.describe() != description:
        raise ValueError(f"the source {path} no longer lists the inputs this store was made from; convert it anew")
    return source


def hold_out(source: Source, fraction: float) -> "HeldOut":
    """Split `val` off a source that has only `train`."""
    if not 0 < fraction <= MAX_VAL_FRACTION:
        raise ValueError(f"val_fraction is {fraction}; it must be above 0 and at most {MAX_VAL_FRACTION}")
    if source.splits != (TRAIN,):
        raise ValueError(
            f"val_fraction is {fraction}, but the source has the splits {', '.join(source.splits)} already"
        )
    return HeldOut(source, fraction)


class HeldOut:
    """A source whose `train` is divided into `train` and `val`, class by class.

    In each class the inputs with the smallest hash of their key go to `val`: the same ones on every machine, and nearly
    the same when inputs are added. A class of two or more gives at least one and keeps at least one.
    """

    def __init__(self, source: Source, fraction: float) -> None:
        self._source, self._fraction = source, fraction
        self.kind, self.classes, self.ignored = source.kind, source.classes, source.ignored
        self.splits: tuple[str, ...] = (TRAIN, VAL)
        self._labels = source.labels(TRAIN)
        self._keys = source.keys(TRAIN)
        held = _held_out(self._keys, self._labels, fraction)
        self._rows = {TRAIN: np.flatnonzero(~held), VAL: np.flatnonzero(held)}

    def keys(self, split: str) -> list[str]:
        return [self._keys[row] for row in self._rows[split].tolist()]

    def labels(self, split: str) -> np.ndarray:
        return self._labels[self._rows[split]]

    def read(self, split: str, index: int) -> bytes | np.ndarray:
        return self._source.read(TRAIN, int(self._rows[split][index]))

    def stamp(self, split: str, start: int, stop: int) -> str:
        return stamp_rows(self._source, TRAIN, self._rows[split][start:stop])

    def describe(self) -> dict[str, Any]:
        return {**self._source.describe(), "val_fraction": self._fraction}


def _held_out(keys: Sequence[str], labels: np.ndarray, fraction: float) -> np.ndarray:
    """bool (n,): which inputs go to `val`."""
    hashes = b"".join(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:8] for key in keys)
    held = np.zeros(len(keys), dtype=bool)
    order = np.lexsort((np.frombuffer(hashes, ">u8"), labels))
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(members) >= 2:
            held[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    return held


def stamp_rows(source: Source, split: str, rows: np.ndarray) -> str:
    """`Source.stamp` of any inputs, int64 (k,); that of the source itself where they follow each other."""
    if len(rows) and (np.diff(rows) == 1).all():
        return source.stamp(split, int(rows[0]), int(rows[-1]) + 1)
    stamps = [source.stamp(split, row, row + 1) for row in rows.tolist()]
    return hashlib.sha256("\n".join(stamps).encode()).hexdigest()
