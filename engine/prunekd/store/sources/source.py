"""What a source of samples is.

A source lists its inputs in a canonical order that fixes their sample ids: classes sorted by name, then file names. It
is described by a dictionary that is kept in the store and suffices to open the source again.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from prunekd.store.format.store import SourceDescription

TRAIN, VAL = "train", "val"


class UnreadableImage(ValueError):
    """An input that cannot become a sample; the message is the reason."""


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
        """Return one input: the bytes of an image file, or uint8 (h, w, 1 or 3).

        Raises:
            UnreadableImage: this input alone cannot be read; it is quarantined with the message as reason.
            OSError: the storage failed, or the source went away. The conversion ends and can be resumed.
        """

    def stamp(self, split: str, start: int, stop: int) -> str:
        """Return a digest of when the inputs start..stop-1 were last changed. OSError as for `read`."""

    def describe(self) -> SourceDescription:
        """Plain values from which `reopen_source` finds the source, with a digest of its listing."""


def stamp_rows(source: Source, split: str, rows: np.ndarray) -> str:
    """`Source.stamp` of any inputs, int64 (k,); that of the source itself where they follow each other."""
    if len(rows) and (np.diff(rows) == 1).all():
        return source.stamp(split, int(rows[0]), int(rows[-1]) + 1)
    stamps = [source.stamp(split, row, row + 1) for row in rows.tolist()]
    return hashlib.sha256("\n".join(stamps).encode()).hexdigest()
