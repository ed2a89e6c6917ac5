"""The torch reader: DataLoader and torchvision on the original files, the baseline everyone has.

It opens the store's source, not the store, and is the oracle the other readers are held against: same ids, same boxes,
pixels by PIL and torchvision.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as T

from prunekd.common.machine import available_cores
from prunekd.input.plan import EpochPlan
from prunekd.input.readers.batch import Batch
from prunekd.input.readers.store_reader import StoreReader
from prunekd.store import Store
from prunekd.store.jobs.images import to_rgb
from prunekd.store.sources import Source, reopen_source

Request = tuple[int, tuple[int, int, int, int], bool, tuple[int, int]]  # id, box, flip, stored (width, height)


class SourceImages(Dataset[tuple[Tensor, int, str]]):
    """Views of a source's images: request -> (uint8 (size, size, 3), bytes read, why it failed or an empty text)."""

    def __init__(self, source: Source, split: str, size: int) -> None:
        self._source, self._split, self._size = source, split, size

    def __getitem__(self, request: Request) -> tuple[Tensor, int, str]:
        try:
            return *self._view(request), ""
        except (ValueError, OSError) as error:
            return torch.zeros(self._size, self._size, 3, dtype=torch.uint8), 0, str(error)

    def _view(self, request: Request) -> tuple[Tensor, int]:
        sample_id, box, flip, stored = request
        data = self._source.read(self._split, sample_id)
        pixels = to_rgb(data)
        read = len(data) if isinstance(data, bytes) else data.nbytes
        left, top, width, height = _in_source(box, stored, (pixels.shape[1], pixels.shape[0]))
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        image = T.crop(image, top, left, height, width)  # fills black outside the image
        if image.shape[1:] != (self._size, self._size):
            # as T.resize does from torchvision 0.24 on; before, it computes in float32 on processors with AVX-512, and
            # one value in seven is a level away from that of the same view on another machine
            size = (self._size, self._size)
            image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
        if flip:
            image = T.horizontal_flip(image)
        return image.permute(1, 2, 0).contiguous(), read


def _in_source(
    box: tuple[int, int, int, int], stored: tuple[int, int], source: tuple[int, int]
) -> tuple[int, int, int, int]:
    """A box in stored pixels as a box in the source's, which is larger where conversion shrank the image."""
    if stored == source:
        return box
    scales = (source[0] / stored[0], source[1] / stored[1]) * 2
    left, top, width, height = (round(value * scale) for value, scale in zip(box, scales, strict=True))
    return left, top, max(1, width), max(1, height)


class TorchReader(StoreReader):
    """Reads the source of a store through a DataLoader; what takes a corrupt sample's place is read from the store.

    Args:
        workers: processes; None for one per core, 0 decodes in the calling process.
        on_error: what happens with a corrupt sample, see Faults.

    Raises:
        ValueError: the source is no longer where the store was made from.
    """

    name = "torch"

    def __init__(
        self, store: Store, split: str, workers: int | None = None, pin: bool = False, on_error: str = "raise"
    ) -> None:
        self._source = reopen_source(store.source)
        super().__init__(store, split, on_error)
        self._workers = available_cores() if workers is None else workers
        self._pin = pin

    def __repr__(self) -> str:
        return f"TorchReader({self._source!r}, {self._workers} processes)"

    def epoch(self, plan: EpochPlan) -> Iterator[Batch]:
        """See Reader."""
        plan = self._own(plan)
        loader: DataLoader[Any] = DataLoader(
            SourceImages(self._source, self._split.name, plan.view.size),
            batch_sampler=_Requests(plan),
            num_workers=self._workers,
            pin_memory=self._pin,
        )
        for number, (images, read, reasons) in enumerate(loader, start=plan.start_batch):
            batch = plan.batch(number)
            self.bytes_read += int(read.sum())
            self.payload_bytes += int(self._split.sizes[batch.rows].sum())
            failures = {k: reason for k, reason in enumerate(reasons) if reason}
            yield self.faults.settle(plan, batch, images, failures)


class _Requests:
    """Batches of requests, made as the DataLoader asks for them."""

    def __init__(self, plan: EpochPlan) -> None:
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[list[Request]]:
        split = self._plan.split
        for number in range(self._plan.start_batch, self._plan.end_batch):
            batch = self._plan.batch(number)
            sizes = zip(split.widths[batch.rows].tolist(), split.heights[batch.rows].tolist(), strict=True)
            boxes = (tuple(box) for box in batch.boxes.tolist())
            yield list(zip(batch.ids.tolist(), boxes, batch.flips.tolist(), sizes, strict=True))
