"""The parallel part of a conversion: read, check and encode inputs in threads, hand them on in order."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EIO
from zlib import crc32

import numpy as np

from prunekd.common.machine import available_cores
from prunekd.store.jobs.images import Sample, prepare
from prunekd.store.jobs.settings import ConvertSettings
from prunekd.store.sources import Source
from prunekd.store.sources.source import UnreadableImage

_BLOCK = 8  # inputs per task: enough to hide the cost of a task, few enough to bound memory
_AHEAD = 4  # blocks under way per thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one input: a sample, or the reason why not."""

    id: int
    key: str
    label: int
    sample: Sample | None
    checksum: int = 0
    reason: str = ""


def outcomes(
    source: Source, split: str, ids: np.ndarray, settings: ConvertSettings, pool: ThreadPoolExecutor
) -> Iterator[Outcome]:
    """Yield the outcomes of the inputs `ids`, int64 (k,), in this order; a bounded number is under way at any time.

    Raises:
        OSError: the storage failed or the source went away, see `cannot_read`.
    """
    keys, labels = source.keys(split), source.labels(split)

    def block(first: int) -> list[Outcome]:
        wanted = ids[first : first + _BLOCK].tolist()
        return [_outcome(source, split, i, keys[i], int(labels[i]), settings) for i in wanted]

    waiting: deque[Future[list[Outcome]]] = deque()
    for first in range(0, len(ids), _BLOCK):
        waiting.append(pool.submit(block, first))
        if len(waiting) >= _AHEAD * (settings.workers or available_cores()):
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


def _outcome(source: Source, split: str, index: int, key: str, label: int, settings: ConvertSettings) -> Outcome:
    try:
        key.encode()
        sample = prepare(source.read(split, index), settings)
    except UnicodeEncodeError:
        return Outcome(id=index, key=key, label=label, sample=None, reason="the file name is not UTF-8")
    except UnreadableImage as error:
        return Outcome(id=index, key=key, label=label, sample=None, reason=str(error))
    except OSError as error:
        raise cannot_read(f"{key} of {split}", error) from error
    return Outcome(id=index, key=key, label=label, sample=sample, checksum=crc32(sample.payload))


def cannot_read(what: str, error: OSError) -> OSError:
    """An error that says that the storage of the source failed while `what` was read, and what to do."""
    text = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    remedy = "make the source available again, then run the same command again to go on"
    if error.errno == EIO:
        remedy += "; if this file alone is damaged, first put a good copy (or an empty file) in its place"
    return OSError(f"cannot read {what} ({text}); what is converted so far is kept: {remedy}")


@contextmanager
def thread_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="convert")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # after an error nobody wants what is still waiting
