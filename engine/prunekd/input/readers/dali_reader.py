"""The dali reader: NVIDIA DALI on a store, fed by the plan.

What DALI users have, with the samples, views, weights and labels of every other reader, a subset that may change every
epoch at no cost, only kept bytes read, and corrupt samples settled instead of the pipeline's death.

Pixels on the CPU are those of `native` to 1 level of 255, but for the outermost rows and columns of a view that is
scaled down: there DALI repeats the edge under the part of its filter that hangs over, 1/8 of the weight, where
torchvision leaves that part out. On photographs of clothing at 224 pixels the mean difference is 0.14 and the largest
7. How it is done stands in `dali_pipeline`.
"""

import itertools
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from prunekd.common.machine import available_cores
from prunekd.input.plan import BatchPlan, EpochPlan
from prunekd.input.readers.batch import Batch
from prunekd.input.readers.dali_pipeline import PlannedPipeline, Request
from prunekd.input.readers.store_reader import StoreReader
from prunekd.store import Split, Store
from prunekd.store.format.beton import MODE_JPEG, MODE_RAW

LOOK_AHEAD = 3  # batches being read from the file before DALI asks for them
BLANK = 8  # side in pixels of what DALI decodes in a corrupt sample's place


@dataclass(slots=True)
class _Loading:
    """A batch on its way: its payloads by position, where they could be read, and why others could not."""

    batch: BatchPlan
    payloads: list[np.ndarray | None]
    failures: dict[int, str]
    parts: list[Future[int]]


class DaliReader(StoreReader):
    """Reads a split of a store with DALI.

    Batches live as long as something refers to them. With `pin` DALI decodes on the current CUDA device (its `mixed`
    backend: hardware decoder or nvJPEG) and the images are there already; otherwise on the CPU.

    Every payload's checksum is held against the index, and its header against the size stated there, before DALI sees
    it: the conversion decoded just these bytes in full, and DALI does not survive corrupt ones.

    Args:
        workers: DALI's num_threads, and as many threads that read; None for one per core this process may use.
        on_error: what happens with a corrupt sample, see Faults.
    """

    name = "dali"

    def __init__(
        self, store: Store, split: str, workers: int | None = None, pin: bool = False, on_error: str = "raise"
    ) -> None:
        super().__init__(store, split, on_error)
        self._workers = workers or available_cores()
        self._device = torch.cuda.current_device() if pin else None
        self._modes = frozenset(np.unique(self._split.modes).tolist())
        self._reading = ThreadPoolExecutor(self._workers, thread_name_prefix="prunekd-dali-read")
        self._blank = np.frombuffer(simplejpeg.encode_jpeg(np.zeros((BLANK, BLANK, 3), np.uint8)), np.uint8)
        self._idle: list[tuple[bool, PlannedPipeline]] = []  # with whether boxes may reach over edges

    def __repr__(self) -> str:
        where = "the CPU" if self._device is None else f"CUDA device {self._device}"
        return f"DaliReader({self._split!r}, {self._workers} threads, decoding on {where})"

    def epoch(self, plan: EpochPlan) -> Iterator[Batch]:
        """See Reader.

        Raises:
            ValueError: a corrupt sample, as `on_error` says.
            RuntimeError: DALI failed.
        """
        plan = self._own(plan)
        padded = plan.view.kind == "pad_crop"
        pipeline = self._take(padded, plan.batch_size)
        reading: deque[_Loading] = deque()
        under_way: deque[_Loading] = deque()
        try:
            for images in pipeline.run(self._requests(plan, reading, under_way)):
                loaded = under_way.popleft()
                self.payload_bytes += int(self._split.sizes[loaded.batch.rows].sum())
                yield self._settled(plan, loaded, images)
        finally:
            for loading in reading:
                for part in loading.parts:
                    part.cancel()
        self._idle.append((padded, pipeline))  # one whose epoch broke off is dropped, with what it has under way

    def close(self) -> None:
        """Stop the threads, free the pipelines and close the file."""
        self._reading.shutdown(cancel_futures=True)
        self._idle.clear()
        super().close()

    def _take(self, padded: bool, batch_size: int) -> PlannedPipeline:
        """A pipeline for such boxes and batches; idle ones for smaller batches are dropped."""
        for k, (pads, pipeline) in enumerate(self._idle):
            if pads == padded and pipeline.batch_size >= batch_size:
                return self._idle.pop(k)[1]
        self._idle = [(pads, pipeline) for pads, pipeline in self._idle if pads != padded]
        return PlannedPipeline(
            batch_size=batch_size,
            threads=self._workers,
            device=self._device,
            jpeg=MODE_JPEG in self._modes,
            raw=MODE_RAW in self._modes,
            padded=padded,
        )

    def _requests(self, plan: EpochPlan, reading: deque[_Loading], under_way: deque[_Loading]) -> Iterator[Request]:
        """What DALI is to decode, batch by batch; the files of the next ones are being read meanwhile."""
        numbers = iter(range(plan.start_batch, plan.end_batch))
        while True:
            while len(reading) < LOOK_AHEAD and (number := next(numbers, None)) is not None:
                reading.append(self._start(plan.batch(number)))
            if not reading:
                return
            self.bytes_read += sum(part.result() for part in reading[0].parts)
            loaded = reading.popleft()
            under_way.append(loaded)
            yield self._request(plan, loaded)

    def _start(self, batch: BatchPlan) -> _Loading:
        """Set the threads to read a batch, one slice each."""
        count = len(batch.ids)
        loading = _Loading(batch, [None] * count, {}, [])
        bounds = np.linspace(0, count, min(self._workers, count) + 1).astype(int).tolist()
        for start, stop in itertools.pairwise(bounds):
            loading.parts.append(self._reading.submit(self._read, loading, start, stop))
        return loading

    def _read(self, loading: _Loading, start: int, stop: int) -> int:
        """Read and check the payloads of some positions; returns the bytes read."""
        split, read = self._split, 0
        rows = loading.batch.rows[start:stop].tolist()
        for k, row in enumerate(rows, start):
            try:
                payload = self._payloads.read(row)
                read += len(payload)
                check(split, row, payload)
                loading.payloads[k] = np.frombuffer(payload, np.uint8)
            except (ValueError, OSError) as error:
                loading.failures[k] = str(error)
        return read

    def _request(self, plan: EpochPlan, loaded: _Loading) -> Request:
        batch, split = loaded.batch, self._split
        boxes, sizes = batch.boxes.copy(), np.full((len(batch.ids), 2), plan.view.size, np.float32)
        sizes[batch.flips, 1] *= -1
        raw = split.modes[batch.rows] == MODE_RAW
        shapes = np.stack((split.heights[batch.rows], split.widths[batch.rows], np.full(len(raw), 3)), axis=1)
        for k in loaded.failures:
            boxes[k] = (0, 0, BLANK, BLANK)
            shapes[k] = (BLANK, BLANK, 3)
        blank = {True: np.zeros(BLANK * BLANK * 3, np.uint8), False: self._blank}
        payloads = [
            blank[is_raw] if payload is None else payload
            for payload, is_raw in zip(loaded.payloads, raw.tolist(), strict=True)
        ]
        starts, extents = np.ascontiguousarray(boxes[:, :2]), np.ascontiguousarray(boxes[:, 2:])
        return Request(payloads, starts, extents, sizes, shapes.astype(np.int32), raw)

    def _settled(self, plan: EpochPlan, loaded: _Loading, images: Tensor) -> Batch:
        if not loaded.failures:
            return self.faults.settle(plan, loaded.batch, images, {})
        settled = self.faults.settle(plan, loaded.batch, images.cpu(), loaded.failures)
        return settled._replace(images=settled.images.to(images.device))


def check(split: Split, row: int, payload: bytes) -> None:
    """ValueError, with the reason, if these are not the bytes that the index knows, or not of the size it states."""
    if zlib.crc32(payload) != split.crc32[row]:
        raise ValueError("its bytes are not those that were stored (their checksum differs)")
    if split.modes[row] == MODE_JPEG:
        height, width, _, _ = simplejpeg.decode_jpeg_header(payload)
        if (width, height) != (split.widths[row], split.heights[row]):
            raise ValueError(
                f"the JPEG is {width} x {height}, the index says {split.widths[row]} x {split.heights[row]}"
            )
