"""FFCV's own Loader, led by the plan: an order, a memory manager and a decoder in the forms FFCV has for them.

What FFCV asks for, and when: `Loader.__iter__` asks the TraversalOrder for the epoch's rows and starts a thread; the
thread calls `MemoryContext.start_batch` before each batch, then the compiled code of the Operations with the context's
`state`, and puts the result into a queue. So a PlanContext prepares each batch just before it is decoded, and nothing
that changes from epoch to epoch is part of compiled code.

The memory manager reads exact extents in the decoding threads (`pread`, with the kernel told that access is random).
FFCV's own two managers touch what is not kept: `os_cache=True` maps the file, and the kernel reads around every page
that is touched; `os_cache=False` reads whole pages of 8 MiB, of which a random subset leaves hardly one out.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from queue import Empty
from typing import Any

import numba
import numpy as np
import torch
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.loader import Loader
from ffcv.memory_managers import MemoryContext, MemoryManager
from ffcv.pipeline.state import State
from ffcv.traversal_order.base import TraversalOrder
from torch import Tensor

from prunekd.input.plan import BatchPlan, EpochPlan
from prunekd.input.readers import ffcv_kernel as kernel
from prunekd.store import Split
from prunekd.store.format.crc import CRC32, crc_tables

Results = Generator[tuple[BatchPlan, Tensor, np.ndarray], None, None]
BATCHES_AHEAD = 3  # batches waiting for their use; one more is in the making


class PlanOrder(TraversalOrder):
    """The rows of the current epoch. FFCV 1.0.2 takes an order as an object and calls it with the Loader."""

    def __init__(self) -> None:
        self.rows = np.zeros(0, dtype=np.int64)

    def __call__(self, loader: Loader) -> "PlanOrder":
        super().__init__(loader)
        return self

    def sample_order(self, epoch: int) -> np.ndarray:
        """Rows, int64, in the order of visit, whatever number FFCV gives the epoch."""
        return self.rows


class PlanContext(MemoryContext):
    """One epoch: prepares each batch as FFCV's thread comes to it.

    Args:
        file: descriptor to read from.
        threads: as many samples are decoded at a time.
        take: gives a buffer uint8 (batch_size, size, size, 3) for the next batch.

    Attributes:
        pending: batches given to the thread, the oldest first.
        error: what went wrong in the thread, None if nothing did.
    """

    def __init__(self, plan: EpochPlan, file: int, threads: int, take: Callable[[], Tensor]) -> None:
        self._plan, self._take = plan, take
        split = plan.split
        largest = 3 * int((split.widths.astype(np.int64) * split.heights).max())
        payload = int(split.sizes.max())
        self._head = np.array([file, 0, plan.view.size, payload], dtype=np.int64)
        self._requests = np.zeros((plan.batch_size, kernel.FLIP + 1), dtype=np.int64)
        self._scratch = np.empty((threads, payload + 2 * largest), dtype=np.uint8)  # untouched, it takes no memory
        self._tables = crc_tables(CRC32)
        self._stopped = False
        self.pending: deque[tuple[BatchPlan, Tensor]] = deque()
        self.error: Exception | None = None

    @property
    def state(self) -> tuple[np.ndarray, ...]:
        """What the compiled code gets to see."""
        return self._head, self._requests, self._scratch, self._tables

    def start_batch(self, batch: int) -> None:
        """Prepare the batch; StopIteration, by which FFCV's thread ends, after `stop` or an error.

        Any other exception would end the thread without a word to whoever waits for the batch.
        """
        if self._stopped:
            raise StopIteration
        try:
            self._prepare(self._plan.batch(self._plan.start_batch + batch))
        except Exception as error:
            self.error = error
            raise StopIteration from error

    def stop(self) -> None:
        """Let the thread end before its next batch."""
        self._stopped = True

    def __enter__(self) -> "PlanContext":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _prepare(self, batch: BatchPlan) -> None:
        split, rows = self._plan.split, batch.rows
        columns = (split.pointers, split.sizes, split.crc32, split.modes, split.widths, split.heights)
        requests = self._requests[: len(rows)]
        requests[:, : kernel.LEFT] = np.stack((rows, *(column[rows] for column in columns)), axis=1)
        requests[:, kernel.LEFT : kernel.FLIP] = batch.boxes
        requests[:, kernel.FLIP] = batch.flips
        images = self._take()
        self._head[kernel.OUT] = images.data_ptr()
        self.pending.append((batch, images))


class PlanMemory(MemoryManager):
    """Hands FFCV the epoch's PlanContext; needs none of the tables over all allocations of the base class."""

    def __init__(self) -> None:
        self.context: PlanContext | None = None

    def schedule_epoch(self, batches: Sequence[Sequence[int]]) -> PlanContext:
        """The context that was set for this epoch."""
        assert self.context is not None
        return self.context

    def compile_reader(self) -> Callable[..., Any]:
        """Unused: PlanDecoder reads for itself."""
        raise NotImplementedError

    @property
    def state_type(self) -> Any:
        """Unused: Numba sees the types when the code is first called."""
        raise NotImplementedError


class PlanDecoder(SimpleRGBImageDecoder):
    """Decodes planned views into the context's buffer; its result is a code per sample, see `ffcv_kernel`."""

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """int32 per sample, and no memory of FFCV's."""
        return replace(previous_state, jit_mode=True, shape=(), dtype=np.dtype("int32")), None

    def generate_code(self) -> Callable[..., Any]:
        """What FFCV compiles: a call of the code that is cached on disk."""
        decode_batch = kernel.decode_batch

        def decode(batch_indices, memory, metadata, state):  # type: ignore[no-untyped-def]
            head, requests, scratch, tables = state
            return decode_batch(batch_indices, head, requests, scratch, tables)

        return decode


class PlannedLoader:
    """An FFCV Loader of one `.beton` file that runs any number of plans, one after the other or at once.

    Args:
        threads: decoding threads.

    Raises:
        ValueError: more threads than Numba allows in this process.
    """

    def __init__(self, split: Split, threads: int) -> None:
        limit: int = vars(numba.config)["NUMBA_NUM_THREADS"]
        if not 1 <= threads <= limit:
            raise ValueError(
                f"workers is {threads}; FFCV decodes in Numba's threads, of which there may be 1 to {limit} here: "
                "change workers or the environment variable NUMBA_NUM_THREADS"
            )
        kernel.bind()
        self._split, self._threads = split, threads
        self._order, self._memory = PlanOrder(), PlanMemory()
        with keeping_thread_counts():
            self.ffcv_loader = Loader(
                str(split.path),
                batch_size=1,
                num_workers=threads,
                os_cache=False,  # of the two managers it would make for itself the one that compiles nothing
                order=self._order,
                pipelines={"image": [PlanDecoder()], "label": None, "id": None},
                drop_last=False,
                batches_ahead=BATCHES_AHEAD,
            )
        self.ffcv_loader.memory_manager = self._memory
        self._file = os.open(split.path, os.O_RDONLY)
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)

    def run(self, plan: EpochPlan, take: Callable[[], Tensor]) -> Results:
        """Yield per batch its plan, its buffer from `take` and the codes, int32 (n,), of its samples.

        Only the first n images of a buffer are of the batch. When the iterator is closed, the thread has ended.

        Raises:
            RuntimeError: FFCV's thread died.
        """
        context = PlanContext(plan, self._file, self._threads, take)
        self._order.rows = plan.split.rows(plan.ids[plan.start_batch * plan.batch_size :])
        self._memory.context = context
        loader = self.ffcv_loader
        loader.batch_size = plan.batch_size
        loader.first_traversal_order = self._order.rows  # FFCV takes the epoch's length from here
        with keeping_thread_counts():
            thread = iter(loader)
        try:
            while (result := _next_result(thread)) is not None:
                batch, images = context.pending.popleft()
                _, (codes,) = result  # the first is the number of a slot of FFCV's own memory
                assert len(codes) == len(batch.ids), (len(codes), len(batch.ids))
                assert kernel.OUT_OF_STEP not in codes, "FFCV's order and the plan are out of step"
                yield batch, images, codes
            if context.error is not None:
                raise context.error
        finally:
            context.stop()
            while thread.is_alive():  # it may be waiting for room in the queue
                _empty(thread.output_queue)
                thread.join(0.005)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@contextmanager
def keeping_thread_counts() -> Iterator[None]:
    """FFCV sets Numba's and PyTorch's number of threads for the caller as well; put them back."""
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        numba.set_num_threads(numba_threads)


def _next_result(thread: Any) -> Any:
    """The next result of FFCV's thread, None at the end of the epoch.

    `EpochIterator.__next__` would wait for ever if the thread had died.
    """
    while True:
        try:
            return thread.output_queue.get(timeout=1.0)
        except Empty:
            if not thread.is_alive() and thread.output_queue.empty():
                raise RuntimeError("FFCV's thread died; its own message is on stderr") from None


def _empty(queue: Any) -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        return
