"""The native reader: exact extents, decoding threads, memory used again; no compiler, any machine."""

import itertools
import logging
import mmap
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import numpy as np
from torch import Tensor

from prunekd.common.machine import available_cores
from prunekd.input.plan import BatchPlan, EpochPlan
from prunekd.input.readers.batch import Batch
from prunekd.input.readers.buffers import Buffers
from prunekd.input.readers.decode import ViewDecoder
from prunekd.input.readers.store_reader import StoreReader
from prunekd.store import Store
from prunekd.store.format.beton import MODE_RAW

logger = logging.getLogger(__name__)

Slice = tuple[int, dict[int, str]]  # bytes read, and why samples failed by position in the batch
_Decoding = tuple[BatchPlan, Tensor, list[Future[Slice]]]  # a batch under way: plan, memory, its slices
LOOK_AHEAD = 3  # batches being decoded while one is used
READ_AHEAD = 4  # batches announced to the kernel at a time, before their decoding begins


class NativeReader(StoreReader):
    """Reads a split of a store with threads.

    Batches live as long as something refers to them; their memory is then used for later ones. With `pin` every batch
    is a fresh block of PyTorch's pinned-memory cache instead, which is not reused before asynchronous copies out of it
    are done.

    Args:
        workers: decoding threads; None for one per core this process may use.
        on_error: what happens with a corrupt sample, see Faults.
        scaled: decode at reduced scale where a view is far smaller than its box, see ViewDecoder. Registered as
            `native-scaled`; without it pixels are torchvision's.
        read_ahead: so many batches are announced to the kernel together, in the order they have in the file; it then
            fetches what is not in memory with as few seeks and as many requests at a time as the storage likes. 0:
            read when the turn of a sample comes.
    """

    name = "native"

    def __init__(
        self,
        store: Store,
        split: str,
        workers: int | None = None,
        pin: bool = False,
        on_error: str = "raise",
        scaled: bool = False,
        read_ahead: int = READ_AHEAD,
    ) -> None:
        super().__init__(store, split, on_error)
        self._decoder = ViewDecoder(self._split, self._payloads, scaled)
        self._workers = workers or available_cores()
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="prunekd-decode")
        self._advised = os.open(self._split.path, os.O_RDONLY)
        self._read_ahead = read_ahead
        self._buffers = Buffers(pin)
        if (self._split.modes != MODE_RAW).any():
            _say(
                logging.WARNING if self._decoder.whole else logging.INFO, f"native reader: {self._decoder.description}"
            )

    def __repr__(self) -> str:
        return f"NativeReader({self._split!r}, {self._workers} threads, {self._decoder.description})"

    def epoch(self, plan: EpochPlan) -> Iterator[Batch]:
        """See Reader.

        Raises:
            ValueError: a corrupt sample, as `on_error` says.
        """
        plan = self._own(plan)
        ahead: deque[_Decoding] = deque()
        batches = self._announced(plan)
        try:
            while True:
                while len(ahead) < LOOK_AHEAD and (planned := next(batches, None)) is not None:
                    ahead.append(self._start(plan, planned))
                if not ahead:
                    return
                # nothing here may refer to the batch while its user has it, or its memory would be free one batch later
                yield self._decoded(plan, ahead)
        finally:
            for _, _, futures in ahead:
                for future in futures:
                    future.cancel()
                for future in futures:
                    if not future.cancelled():
                        future.exception()  # wait: the thread writes into the memory until it is done

    def close(self) -> None:
        """Stop the threads and close the file."""
        self._pool.shutdown(cancel_futures=True)
        super().close()
        if self._advised >= 0:
            os.close(self._advised)
            self._advised = -1
        self._buffers.clear()

    def _decoded(self, plan: EpochPlan, ahead: deque[_Decoding]) -> Batch:
        """The first of the batches under way, once it is done."""
        batch, images, futures = ahead[0]
        failures: dict[int, str] = {}
        for read, failed in (future.result() for future in futures):
            self.bytes_read += read
            failures |= failed
        self.payload_bytes += int(self._split.sizes[batch.rows].sum())
        ahead.popleft()
        return self.faults.settle(plan, batch, images[: len(batch.ids)], failures)

    def _announced(self, plan: EpochPlan) -> Iterator[BatchPlan]:
        """The epoch's batches in order, each announced to the kernel well before it is given out."""
        numbers = iter(range(plan.start_batch, plan.end_batch))
        waiting: deque[BatchPlan] = deque()
        while True:
            while len(waiting) <= self._read_ahead:
                group = [plan.batch(number) for number in itertools.islice(numbers, max(1, self._read_ahead))]
                if not group:
                    break
                if self._read_ahead:
                    self._pool.submit(self._announce, np.concatenate([batch.rows for batch in group]))
                waiting.extend(group)
            if not waiting:
                return
            yield waiting.popleft()

    def _announce(self, rows: np.ndarray) -> None:
        """Let the kernel begin to fetch these rows, in the order of the file."""
        starts, sizes = self._split.pointers[rows].astype(np.int64), self._split.sizes[rows].astype(np.int64)
        order = np.argsort(starts)
        starts, ends = starts[order], (starts + sizes)[order]
        # Neighbours are asked for together: no whole page fits into a gap of less than one.
        begins = np.flatnonzero(np.concatenate(([True], starts[1:] - ends[:-1] >= mmap.PAGESIZE)))
        lasts = np.append(begins[1:], len(rows)) - 1
        for start, end in zip(starts[begins].tolist(), ends[lasts].tolist(), strict=True):
            os.posix_fadvise(self._advised, start, end - start, os.POSIX_FADV_WILLNEED)

    def _start(self, plan: EpochPlan, batch: BatchPlan) -> _Decoding:
        """Set the threads to work on a batch, one slice each, so that a small image costs no task of its own."""
        images = self._buffers.take(plan.batch_size, plan.view.size)
        out = images.numpy()
        bounds = np.linspace(0, len(batch.ids), min(self._workers, len(batch.ids)) + 1).astype(int).tolist()
        slices = [slice(a, b) for a, b in itertools.pairwise(bounds)]
        return batch, images, [self._pool.submit(self._decode_slice, batch, part, out) for part in slices]

    def _decode_slice(self, batch: BatchPlan, part: slice, out: np.ndarray) -> Slice:
        """Decode a slice of a batch into `out`."""
        read, failures = 0, {}
        rows, boxes, flips = batch.rows[part].tolist(), batch.boxes[part].tolist(), batch.flips[part].tolist()
        for k, row, box, flip in zip(range(part.start, part.stop), rows, boxes, flips, strict=True):
            try:
                read += self._decoder.read(row, box, flip, out[k])
            except (ValueError, OSError) as error:
                failures[k] = str(error)
        return read, failures


@cache
def _say(level: int, line: str) -> None:
    """Log a line once per process, however many readers are opened."""
    logger.log(level, line)
