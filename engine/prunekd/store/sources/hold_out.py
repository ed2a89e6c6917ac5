"""Hold a validation split out of a source that has none."""

import hashlib
from collections.abc import Sequence

import numpy as np

from prunekd.store.format.store import SourceDescription
from prunekd.store.sources.source import TRAIN, VAL, Source, stamp_rows

MAX_VAL_FRACTION = 0.9


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
        self.notes: tuple[str, ...] = getattr(source, "notes", ())
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

    def describe(self) -> SourceDescription:
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
