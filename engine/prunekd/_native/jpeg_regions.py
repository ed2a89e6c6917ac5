"""Rectangles of JPEG files, pixel for pixel those of a whole decode.

libjpeg-turbo can pass over rows and columns outside a rectangle, which takes less than half the time of decoding all of
a photograph for a random resized crop. No Python package offers that at present; `jpeg_library` makes it callable.
"""

import ctypes
import threading
import weakref

import numpy as np

from prunekd._native.libjpeg import State, library
from prunekd._native.machine_code import FULL, LIBJPEG_ERROR, OTHER_SIZE, Task

MARGIN = 8  # columns more on each side: interpolation of chroma looks at a neighbour, which is two columns away


# libjpeg-turbo writes a row past the caches where it begins at a multiple of 16 or 32 bytes; fetching it from memory
# again a moment later made a decode take half as long again, in those processes whose memory happened to lie so.
ODD = 24


class RegionDecoder:
    """Decodes rectangles; for one thread at a time.

    Raises:
        ValueError: there is no such library here; the message says why.
    """

    def __init__(self) -> None:
        found = library()
        if isinstance(found, str):
            raise ValueError(found)
        self._library = found
        self._state = State(found)
        if self._state.create(found.version, found.size) != 0:
            raise ValueError(f"{found.path} cannot be used: {self._state.message()}")
        weakref.finalize(self, found.destroy, ctypes.addressof(self._state.jpeg)).atexit = False
        self._task = Task()
        self._line = np.empty(0, dtype=np.uint8)
        self._out = np.empty(0, dtype=np.uint8)

    def decode(
        self, payload: bytes, width: int, height: int, box: tuple[int, int, int, int], scale: int = FULL
    ) -> np.ndarray:
        """The pixels of a rectangle, RGB uint8 (h, w, 3), in memory that the next call uses again.

        Args:
            payload: a JPEG file; what lies behind the rectangle in it is not looked at.
            width, height: its size in pixels, which must be right.
            box: left, top, w, h, inside the image, of one pixel or more; in pixels of the scaled image.
            scale: eighths of the original size: 8, 4, 2 or 1. Less than 8 leaves out the high frequencies of each
                8 x 8 block (a smaller inverse DCT); the scaled image has ceil(width x scale / 8) columns.

        Raises:
            ValueError: a corrupt file; the message is the reason.
        """
        left, top, w, h = box
        columns, rows = -(-width * scale // FULL), -(-height * scale // FULL)
        assert 0 <= left < left + w <= columns, (box, columns)
        assert 0 <= top < top + h <= rows, (box, rows)
        assert scale in (8, 4, 2, 1)
        first, last = max(0, left - MARGIN), min(columns, left + w + MARGIN)
        if len(self._line) < 3 * columns + ODD:
            self._line = np.empty(3 * columns + ODD, dtype=np.uint8)
        if len(self._out) < 3 * w * h:
            self._out = np.empty(3 * w * h, dtype=np.uint8)
        self._task.__init__(scale, width, height, first, top, last - first, h, left, w)  # type: ignore[misc]
        state = self._state
        code = self._library.decode(
            ctypes.addressof(state.jpeg),
            ctypes.addressof(state.jump),
            payload,
            len(payload),
            ctypes.addressof(self._task),
            self._line.ctypes.data // 16 * 16 + ODD,
            self._out.ctypes.data,
        )
        if code == OTHER_SIZE:
            raise ValueError(f"the JPEG is not of the size the index says, {width} x {height}")
        if code == LIBJPEG_ERROR or state.errors.num_warnings:
            raise ValueError(f"libjpeg-turbo says: {state.message()}")
        return self._out[: 3 * w * h].reshape(h, w, 3)


class RegionDecoders(threading.local):
    """A RegionDecoder for each thread, made when it first asks."""

    def __init__(self) -> None:
        self.decode = RegionDecoder().decode
