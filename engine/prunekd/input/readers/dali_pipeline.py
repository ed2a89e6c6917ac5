"""A DALI pipeline that decodes, crops, resizes and mirrors what it is given: payloads with the views of a plan.

    external_source -> decoders.image_slice -> resize (a negative extent mirrors)

Boxes, output size and flips are inputs like the payloads, so nothing is built again when the samples, the view's scale
or the resolution change. Raw images take the way of `slice`, as do boxes that reach over an image's edges.

DALI 2.4 must not see a damaged JPEG: its decoder throws while other samples of the batch are still being decoded into
memory that is then freed, and the process dies now and then. So whoever feeds it checks first.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from torch import Tensor

INPUTS = (
    (types.DALIDataType.UINT8, 1),
    (types.DALIDataType.INT32, 1),
    (types.DALIDataType.INT32, 1),
    (types.DALIDataType.FLOAT, 1),
    (types.DALIDataType.INT32, 1),
    (types.DALIDataType.BOOL, 0),
)  # types and dimensions of a Request's fields; JPEG files alone need no shapes, samples of one kind no `raw`
DEPTH = 3  # batches in DALI's hands: one being handed out, two in the making


class Request(NamedTuple):
    """A batch to decode.

    payloads: a JPEG file, or pixels for a raw image, uint8, per sample; starts, extents: int32 (B, 2) left, top and
    width, height of the boxes; sizes: float32 (B, 2) height, width of the output, the width negative to mirror; shapes:
    int32 (B, 3) height, width, 3 of raw images; raw: bool (B,).
    """

    payloads: list[np.ndarray]
    starts: np.ndarray
    extents: np.ndarray
    sizes: np.ndarray
    shapes: np.ndarray
    raw: np.ndarray


class PlannedPipeline:
    """A DALI pipeline for any number of epochs, one after the other.

    Args:
        batch_size: the largest that will come.
        threads: decoding threads.
        device: number of the CUDA device that decodes and holds the batches; None for the CPU.
        jpeg, raw: which of the two there are among the samples.
        padded: boxes may reach over the edges; JPEG files are decoded whole then.
    """

    def __init__(
        self, *, batch_size: int, threads: int, device: int | None, jpeg: bool, raw: bool, padded: bool
    ) -> None:
        self.batch_size = batch_size
        self._source = _Source(len(INPUTS) if jpeg and raw else 4 + raw)
        self._on_gpu = device is not None
        self._pipeline = _defined(self._source, device is not None, jpeg, raw, padded)(
            batch_size=batch_size, num_threads=threads, device_id=device, prefetch_queue_depth=DEPTH
        )
        self._pipeline.build()

    def run(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """Yield the images, uint8 (B, height, width, 3), of each request in order; requests are taken ahead of that.

        Their memory is DALI's, which takes it back when nothing refers to it any more. On a GPU they are ready for
        the current CUDA stream. After an error, or if the iterator is left early, the pipeline cannot be used again.

        Raises:
            RuntimeError: DALI failed; the message is DALI's.
        """
        self._source.requests = iter(requests)
        while (images := self._next()) is not None:
            self._source.under_way.popleft()
            yield torch.from_dlpack(images.as_tensor())
        self._pipeline.reset()

    def _next(self) -> Any:
        """The next batch from DALI, None at the end."""
        stream = torch.cuda.current_stream() if self._on_gpu else None
        try:
            return self._pipeline.run(stream)[0]
        except StopIteration:
            return None
        except (RuntimeError, ValueError, IndexError) as error:  # DALI's own translations of C++ exceptions
            if self._source.error is not None:
                raise self._source.error from None
            raise RuntimeError(f"DALI failed: {' '.join(str(error).split())}") from error


class _Source:
    """What external_source calls; apart from the pipeline, which would otherwise refer to itself and live on.

    DALI reads the arrays of requests under way, uncopied; they are kept here, as DALI's own pipeline keeps this object.
    """

    def __init__(self, count: int) -> None:
        self.count = count  # as many fields of a request are needed
        self.requests: Iterator[Request] = iter(())
        self.under_way: deque[Request] = deque()
        self.error: Exception | None = None

    def __call__(self) -> tuple[Any, ...]:
        try:
            self.under_way.append(next(self.requests))
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise
        return self.under_way[-1][: self.count]


def _defined(source: _Source, on_gpu: bool, jpeg: bool, raw: bool, padded: bool) -> Any:
    """The pipeline's definition; a function that makes one of batch_size, num_threads, ..."""
    assert jpeg or raw
    device = "mixed" if on_gpu else "cpu"
    # a box that leaves a JPEG image is an error, for the index would be wrong; over raw pixels it costs nothing to pad
    padding: dict[str, Any] = {"axis_names": "WH", "out_of_bounds_policy": "pad", "fill_values": 0}

    def decoded(payload: Any, start: Any, extent: Any) -> Any:
        how: dict[str, Any] = {"device": device, "adjust_orientation": False, "jpeg_fancy_upsampling": True}
        if padded:
            return fn.slice(fn.decoders.image(payload, **how), start, extent, **padding)
        return fn.decoders.image_slice(payload, start, extent, axis_names="WH", **how)

    def taken(payload: Any, start: Any, extent: Any, shape: Any) -> Any:
        pixels = fn.reshape(payload, shape=shape, layout="HWC")
        return fn.slice(pixels.gpu() if on_gpu else pixels, start, extent, **padding)

    def inputs() -> Any:
        return fn.external_source(
            source=source,
            num_outputs=source.count,
            batch=True,
            no_copy=True,
            dtype=[dtype for dtype, _ in INPUTS[: source.count]],
            ndim=[ndim for _, ndim in INPUTS[: source.count]],
        )

    # INTERP_TRIANGULAR is linear with antialiasing, as torchvision's resize; of DALI's filters it comes nearest to it.
    def resized(image: Any, size: Any) -> Any:
        return fn.resize(image, size=size, interp_type=types.DALIInterpType.INTERP_TRIANGULAR)

    @pipeline_def
    def of_one_kind() -> Any:
        payload, start, extent, size, *shape = inputs()
        return resized(taken(payload, start, extent, *shape) if raw else decoded(payload, start, extent), size)

    @pipeline_def(enable_conditionals=True)
    def of_both_kinds() -> Any:
        payload, start, extent, size, shape, is_raw = inputs()
        if is_raw:
            image = taken(payload, start, extent, shape)
        else:
            image = decoded(payload, start, extent)
        return resized(image, size)

    return of_both_kinds if jpeg and raw else of_one_kind
