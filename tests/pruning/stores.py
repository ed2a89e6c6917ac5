"""Stores without files, for what looks at ids and labels alone."""

from pathlib import Path

import numpy as np

from prunekd.store import Split, Store


def a_store(count: int = 60, seed: int = 0, **changes) -> Store:
    """A store of `count` samples in 3 classes, ids with gaps, ascending; the same samples in both splits."""
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(3 * count, size=count, replace=False))
    return store_of(ids, rng.integers(3, size=count), **changes)


def store_of(
    ids: np.ndarray,
    labels: np.ndarray,
    *,
    path: Path = Path("/here/store"),
    classes: tuple[str, ...] = ("cat", "dog", "hen"),
    fingerprint: str = "f" * 64,
    kind: type[Split] = Split,
) -> Store:
    """A store whose splits train and val both hold these samples, in this order on disk."""
    zeros = np.zeros(len(ids), np.int64)
    splits = {
        name: kind(
            name=name,
            path=path / f"{name}.beton",
            ids=np.asarray(ids),
            labels=np.asarray(labels),
            pointers=zeros,
            sizes=zeros,
            modes=zeros.astype(np.uint8),
            widths=zeros.astype(np.int32),
            heights=zeros.astype(np.int32),
            crc32=zeros.astype(np.uint32),
        )
        for name in ("train", "val")
    }
    return Store(
        path=path,
        classes=classes,
        fingerprint=fingerprint,
        source={},
        settings={},
        counts={},
        quarantined=[],
        ignored={},
        splits=splits,
    )
