"""Every byte of a store held against what was noted when it was made: after a copy, or when a disk is in doubt."""

import itertools
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from errno import EIO

import numpy as np

from prunekd.common.machine import available_cores
from prunekd.store.format.index import Fingerprint, column, read_index, slices
from prunekd.store.format.store import Split, Store

PIECE = 64  # samples that a thread checks at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A sample whose bytes are not those that were stored: its split, id and key, and what is wrong with it."""

    split: str
    id: int
    key: str
    reason: str


def verify(
    store: Store,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> list[Damage]:
    """Compare every byte of a store with its checksums.

    Args:
        workers: threads that read and compute checksums; None for one per core.
        progress: called with the name of a split, samples done and in all, split after split.

    Raises:
        ValueError: the index is not the one that the store was made with.
        OSError: the storage went away.
    """
    check_index(store)
    found = []
    for name, split in store.splits.items():
        wrong = damaged(split, workers or available_cores(), lambda done, total, name=name: progress(name, done, total))  # type: ignore[misc]
        keys = split.keys(np.array([row for row, _ in wrong], dtype=np.int64))
        found += [
            Damage(split=name, id=int(split.ids[row]), key=key, reason=reason)
            for (row, reason), key in zip(wrong, keys, strict=True)
        ]
    return found


def check_index(store: Store) -> None:
    """Raise ValueError unless the ids, keys, labels and checksums of a store have the fingerprint of its store.json."""
    fingerprint = Fingerprint()
    for name in sorted(store.splits):
        table = read_index(store.split(name).index_path)
        fingerprint.begin(name)
        for part in slices(table, np.argsort(column(table, "id"))):
            fingerprint.add(part)
    if fingerprint.hexdigest() != store.fingerprint:
        raise ValueError(
            f"the index of {store.path} is not the one its store.json speaks of (their fingerprints differ); "
            "convert the dataset again"
        )


def damaged(
    split: Split, workers: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[tuple[int, str]]:
    """Rows of a split whose bytes are not those that were stored, with the reason; all payloads are read.

    Args:
        workers: threads that read and compute checksums.
        progress: called with samples done and in all.
    """
    found: list[tuple[int, str]] = []
    pieces = np.array_split(np.arange(len(split)), -(-len(split) // PIECE))
    with split.payloads() as payloads, ThreadPoolExecutor(workers, thread_name_prefix="prunekd-verify") as pool:

        def check(rows: np.ndarray) -> list[tuple[int, str]]:
            wrong = []
            for row in rows.tolist():
                try:
                    if zlib.crc32(payloads.read(row)) != split.crc32[row]:
                        wrong.append((row, "its bytes are not those that were stored (their checksum differs)"))
                except ValueError as error:
                    wrong.append((row, str(error)))
                except OSError as error:
                    if error.errno != EIO:
                        raise  # the storage went away: nothing is known about the sample
                    wrong.append((row, error.strerror or str(error)))
            return wrong

        done = 0
        for some in _batches(pieces, 4 * workers):
            for rows, wrong in zip(some, pool.map(check, some), strict=True):
                found += wrong
                done += len(rows)
                progress(done, len(split))
    return found


def _batches(pieces: list[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """The pieces, so many at a time: an interrupt then waits for few."""
    left = iter(pieces)
    while some := list(itertools.islice(left, size)):
        yield some
