"""The ffcv reader: FFCV 1.0.2's own Loader on a store, led by the plan.

What FFCV users have, with the samples and views of every other reader, a subset that may change every epoch at no cost,
only kept bytes read, and corrupt images noticed. How it is done stands in `ffcv_loader` and `ffcv_kernel`. Pixels
are FFCV's: fast inverse DCT and INTER_AREA, where `native` has the accurate DCT and torchvision's antialiased bilinear
filter.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from prunekd.common.machine import available_cores
from prunekd.input.batch import Batch
from prunekd.input.faults import Faults
from prunekd.input.ffcv_kernel import REASONS
from prunekd.input.ffcv_loader import PlannedLoader
from prunekd.input.plan import EpochPlan
from prunekd.store.index import Store

HELD = 2  # batches whose memory stays untouched: the one in use and the one before


class FfcvReader:
    """Reads a split of a store with FFCV.

    Opening it compiles nothing anew after the first time on a machine: Numba keeps the code beside this package, or in
    NUMBA_CACHE_DIR. A batch's memory stays valid until the next batch but one is asked for; with `pin` every batch is
    a fresh block of PyTorch's pinned-memory cache, which is not reused before asynchronous copies out of it are done.

    Args:
        workers: FFCV's num_workers, decoding threads; None for one per core this process may use.
        on_error: what happens with a corrupt sample, see Faults.

    Raises:
        ValueError: more workers than Numba has threads.
    """

    name = "ffcv"

    def __init__(
        self, store: Store, split: str, workers: int | None = None, pin: bool = False, on_error: str = "raise"
    ) -> None:
        self._split = store.split(split)
        self._payloads = self._split.payloads()
        self.faults = Faults(self._split, self._payloads, on_error)
        self._workers = workers or available_cores()
        self._loader = PlannedLoader(self._split, self._workers)
        self._pin = pin
        self._free: list[Tensor] = []
        self._lock = threading.Lock()
        self.bytes_read = 0
        self.payload_bytes = 0

    def __repr__(self) -> str:
        return f"FfcvReader({self._split!r}, {self._workers} threads)"

    def epoch(self, plan: EpochPlan) -> Iterator[Batch]:
        """See Reader.

        Raises:
            ValueError: a corrupt sample, as `on_error` says.
        """
        assert plan.split is self._split
        taken: deque[Tensor] = deque()

        def take() -> Tensor:
            taken.append(self._take(plan.batch_size, plan.view.size))
            return taken[-1]

        try:
            with closing(self._loader.run(plan, take)) as results:
                for number, (batch, images, codes) in enumerate(results):
                    if number >= HELD:
                        self._give_back(taken.popleft())
                    self.bytes_read += int(self._split.sizes[batch.rows].sum())
                    self.payload_bytes += int(self._split.sizes[batch.rows].sum())
                    failures = {int(k): REASONS[int(codes[k])] for k in np.flatnonzero(codes)}
                    yield self.faults.settle(plan, batch, images[: len(batch.ids)], failures)
        finally:
            for images in taken:
                self._give_back(images)

    def close(self) -> None:
        """Close the files and free the buffers."""
        self._loader.close()
        self._payloads.close()
        self._free.clear()

    def __enter__(self) -> "FfcvReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, batch_size: int, size: int) -> Tensor:
        shape = (batch_size, size, size, 3)
        if self._pin:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        with self._lock:
            for i, buffer in enumerate(self._free):
                if buffer.shape == shape:
                    return self._free.pop(i)
            self._free.clear()  # buffers of another shape belong to another plan
        return torch.empty(shape, dtype=torch.uint8)

    def _give_back(self, images: Tensor) -> None:
        if not self._pin:
            with self._lock:
                self._free.append(images)
