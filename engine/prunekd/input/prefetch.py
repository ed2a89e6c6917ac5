"""Batches onto the device: on a GPU the next one is copied, on a stream of its own, while this one trains."""

from collections.abc import Generator, Iterator
from functools import cache

import torch

from prunekd.input.readers.batch import Batch


def on_device(batches: Iterator[Batch], device: torch.device) -> Generator[Batch, None, None]:
    """Yield the batches with images, labels and weights on `device`; ids stay on the host.

    Images cross the bus as uint8. Closing this iterator closes `batches`.
    """
    try:
        yield from batches if device.type != "cuda" else _ahead(batches, device)
    finally:
        if isinstance(batches, Generator):
            batches.close()


@cache
def copy_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream on which batches are copied to a GPU: one per device and process.

    PyTorch's allocator keeps freed memory by stream, so a stream per epoch would keep that of every epoch before.
    """
    return torch.cuda.Stream(device)


def _ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    stream = copy_stream(device)
    coming = _copy(next(batches, None), device, stream)
    while coming is not None:
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for tensor in (coming.images, coming.labels, coming.weights):
            if tensor is not None:
                tensor.record_stream(current)  # its memory must outlive the work queued on it
        yield coming
        coming = _copy(next(batches, None), device, stream)


def _copy(batch: Batch | None, device: torch.device, stream: torch.cuda.Stream) -> Batch | None:
    if batch is None:
        return None
    with torch.cuda.stream(stream):
        return Batch(
            images=batch.images.to(device, non_blocking=True),
            labels=batch.labels.to(device, non_blocking=True),
            ids=batch.ids,
            weights=None if batch.weights is None else batch.weights.to(device, non_blocking=True),
        )
