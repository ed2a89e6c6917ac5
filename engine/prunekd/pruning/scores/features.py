"""The features file: a NumPy array float16 (n, F) with one row per sample, in ascending order of id.

Each process of a pass appends its rows to a part of its own; `join` brings them into order.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prunekd.common.files import replacing

BLOCK = 1 << 24  # values of a block in memory


class FeaturePart:
    """One process's features on their way to the file `path`: rows in the order of the pass."""

    def __init__(self, path: Path, rank: int = 0) -> None:
        self._path = part_path(path, rank)
        self._file = self._path.open("wb")

    def add(self, rows: np.ndarray) -> None:
        """Append float rows (B, F).

        Raises:
            ValueError: a feature too large for float16.
        """
        with np.errstate(over="ignore"):
            half = rows.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError("the teacher's features do not fit float16 (beyond 65504, or not finite)")
        half.tofile(self._file)

    def close(self) -> None:
        """Finish the part."""
        self._file.close()


def part_path(path: Path, rank: int) -> Path:
    """Where the part of one process lies."""
    return path.with_name(f".{path.name}.part{rank}")


def join(path: Path, ids: list[np.ndarray]) -> None:
    """Write the features file from the parts and remove them; ids[r] int64 are the samples of part r, in its order."""
    every = np.sort(np.concatenate(ids))
    width = part_path(path, 0).stat().st_size // 2 // max(1, len(ids[0]))
    with replacing(path) as temporary:
        whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=(len(every), width))
        for rank, own in enumerate(ids):
            if not len(own):
                continue
            part = np.memmap(part_path(path, rank), dtype=np.float16, mode="r", shape=(len(own), width))
            rows = np.searchsorted(every, own)
            for some in blocks(part):
                whole[rows[some]] = part[some]
        whole.flush()
    for rank in range(len(ids)):
        part_path(path, rank).unlink(missing_ok=True)


def read_features(path: Path, count: int) -> np.ndarray:
    """The features of `count` samples, memory-mapped, float16 (count, F).

    Raises:
        ValueError: no such file, or not the features of that many samples.
    """
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as features: {error}; write them with `prunekd score --features {path}`"
        ) from None
    if features.ndim != 2 or len(features) != count:
        raise ValueError(f"{path} holds {features.shape}, not one row for each of the {count} samples; write it anew")
    return features


def blocks(features: np.ndarray) -> Iterator[slice]:
    """Slices of rows that hold about BLOCK values each."""
    step = max(1, BLOCK // max(1, features.shape[1]))
    for start in range(0, len(features), step):
        yield slice(start, min(start + step, len(features)))
