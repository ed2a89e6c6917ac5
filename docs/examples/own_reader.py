"""A reader of one's own, `memory`: the stored bytes of what is kept stay in memory after they were read once.

python docs/examples/own_reader.py train store --recipe demo --reader memory --out run
"""

from collections.abc import Iterator
from types import TracebackType

import numpy as np
import torch

from prunekd.cli import main
from prunekd.input import READERS, Batch, EpochPlan, Faults
from prunekd.input.readers.decode import ViewDecoder
from prunekd.store import Store


class MemoryReader:
    """One thread, no look-ahead: short enough to read, too slow to use.

    What a reader must do: yield the plan's batches in the plan's order, cut the boxes the plan says, count the bytes
    asked of the storage, and hand samples that cannot be decoded to `Faults`.
    """

    name = "memory"

    def __init__(
        self, store: Store, split: str, workers: int | None = None, pin: bool = False, on_error: str = "raise"
    ) -> None:
        self._split = store.split(split)
        self._payloads = self._split.payloads()
        self._decoder = ViewDecoder(self._split, self._payloads)
        self._kept: dict[int, bytes] = {}
        self._pin = pin
        self.faults = Faults(self._split, self._payloads, on_error)
        self.bytes_read = 0
        self.payload_bytes = 0

    def epoch(self, plan: EpochPlan) -> Iterator[Batch]:
        """Batches of images uint8 (B, 3, size, size) in channels-last memory."""
        for number in range(plan.start_batch, plan.end_batch):
            batch = plan.batch(number)
            images = np.empty((len(batch.ids), plan.view.size, plan.view.size, 3), dtype=np.uint8)
            failures = {}
            views = zip(batch.rows.tolist(), batch.boxes.tolist(), batch.flips.tolist(), strict=True)
            for k, (row, box, flip) in enumerate(views):
                try:
                    self._decoder.decode(self._payload(row), row, box, flip, images[k])
                except (ValueError, OSError) as error:
                    failures[k] = str(error)
            self.payload_bytes += int(self._split.sizes[batch.rows].sum())
            tensor = torch.from_numpy(images)
            yield self.faults.settle(plan, batch, tensor.pin_memory() if self._pin else tensor, failures)

    def _payload(self, row: int) -> bytes:
        if row not in self._kept:
            self._kept[row] = self._payloads.read(row)
            self.bytes_read += len(self._kept[row])
        return self._kept[row]

    def close(self) -> None:
        """Free the memory and close the file."""
        self._kept.clear()
        self._payloads.close()

    def __enter__(self) -> "MemoryReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


if __name__ == "__main__":
    READERS[MemoryReader.name] = MemoryReader
    main()
