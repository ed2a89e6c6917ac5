"""The features file: a NumPy array float16 (n, F) with one row per sample, in ascending order of id.

Each process of a pass appends its rows to a part of its own; `join` brings them into order. Beside a file that is kept
lies another, `FILE.json`, that says which store and teacher it belongs to and has its digest.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from prunekd.common.arrays import load_array
from prunekd.common.files import read_json, replacing, write_json
from prunekd.pruning.parquet import check_split, check_store
from prunekd.store import Store

logger = logging.getLogger(__name__)

FORMAT = "prunekd-features"
VERSION = 1
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
    features = load_array(path, _remedy(path))
    if features.ndim != 2 or len(features) != count or features.dtype.kind != "f":
        raise ValueError(
            f"{path} holds {features.dtype} {features.shape}, not one row for each of the {count} samples; "
            f"{_remedy(path)}"
        )
    return features


def describe_features(path: Path, origin: Mapping[str, object]) -> None:
    """Write what the features file `path` belongs to, and its digest, into the file beside it."""
    digest = _checked_digest(path, np.load(path, mmap_mode="r", allow_pickle=False))
    write_json(_beside(path), {"format": FORMAT, "version": VERSION, **origin, "digest": digest})


def open_features(path: Path, store: Store, split: str) -> np.ndarray:
    """The features of a split of a store as `read_features`, checked against what lies beside them.

    Raises:
        ValueError: as `read_features`; features of another store or split, damaged or not finite.
    """
    features = read_features(path, len(store.split(split)))
    digest = _checked_digest(path, features)
    if not _beside(path).exists():
        logger.debug(f"{path} has no {_beside(path).name} that says which store it belongs to: taken on trust")
        return features
    described = read_json(_beside(path))
    if not isinstance(described, dict) or described.get("format") != FORMAT or described.get("version") != VERSION:
        raise ValueError(f"{_beside(path)} does not describe features of version {VERSION}; {_remedy(path)}")
    check_store(f"the features {path}", described, store, _remedy(path))
    check_split(f"the features {path} are", described, split, _remedy(path))
    if described.get("digest") != digest:
        raise ValueError(f"{path} is damaged: it is not what the digest in {_beside(path).name} says; {_remedy(path)}")
    return features


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _remedy(path: Path) -> str:
    return f"write them anew with `prunekd score STORE --teacher T --features {path} --out SCORES`"


def _checked_digest(path: Path, features: np.ndarray) -> str:
    """SHA-256 of the values; ValueError for one that is not finite."""
    found = hashlib.sha256()
    for part in blocks(features):
        values = np.ascontiguousarray(features[part])
        broken = ~np.isfinite(values).all(axis=1)
        if broken.any():
            raise ValueError(
                f"{path} holds features that are not finite for {int(broken.sum())} samples or more, the first in row "
                f"{part.start + int(np.flatnonzero(broken)[0])}; {_remedy(path)}"
            )
        found.update(values.view(np.uint8).data)
    return found.hexdigest()


def blocks(features: np.ndarray) -> Iterator[slice]:
    """Slices of rows that hold about BLOCK values each."""
    step = max(1, BLOCK // max(1, features.shape[1]))
    for start in range(0, len(features), step):
        yield slice(start, min(start + step, len(features)))
