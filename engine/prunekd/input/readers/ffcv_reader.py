"""The ffcv reader: FFCV 1.0.2's own Loader on a store, led by the plan.

What FFCV users have, with the samples and views of every other reader, a subset that may change every epoch at no cost,
only kept bytes read, and corrupt images noticed. How it is done stands in `ffcv_loader` and `ffcv_kernel`. Pixels
are FFCV's: fast inverse DCT and INTER_AREA, where `native` has the accurate DCT and torchvision's antialiased bilinear
filter.
"""

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import numpy as np

from prunekd.common.machine import available_cores
from prunekd.input.plan import EpochPlan
from prunekd.input.readers.batch import Batch
from prunekd.input.readers.buffers import Buffers
from prunekd.input.readers.ffcv_kernel import REASONS
from prunekd.input.readers.ffcv_loader import PlannedLoader
from prunekd.input.readers.store_reader import StoreReader
from prunekd.store import Store


class FfcvReader(StoreReader):
    """Reads a split of a store with FFCV.

    Opening it compiles nothing anew after the first time on a machine: Numba keeps the code beside this package, or in
    NUMBA_CACHE_DIR. Batches live as long as something refers to them; with `pin` every batch is a fresh block of
    PyTorch's pinned-memory cache, which is not reused before asynchronous copies out of it are done.

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
        super().__init__(store, split, on_error)
        self._workers = workers or available_cores()
        self._loader = PlannedLoader(self._split, self._workers)
        self._buffers = Buffers(pin)

    def __repr__(self) -> str:
        return f"FfcvReader({self._split!r}, {self._workers} threads)"

    def epoch(self, plan: EpochPlan) -> Iterator[Batch]:
        """See Reader.

        Raises:
            ValueError: a corrupt sample, as `on_error` says.
        """
        plan = self._own(plan)
        take = partial(self._buffers.take, plan.batch_size, plan.view.size)
        with closing(self._loader.run(plan, take)) as results:
            for batch, images, codes in results:
                self.bytes_read += int(self._split.sizes[batch.rows].sum())
                self.payload_bytes += int(self._split.sizes[batch.rows].sum())
                failures = {int(k): REASONS[int(codes[k])] for k in np.flatnonzero(codes)}
                yield self.faults.settle(plan, batch, images[: len(batch.ids)], failures)

    def close(self) -> None:
        """Close the files and free the buffers."""
        self._loader.close()
        super().close()
        self._buffers.clear()
