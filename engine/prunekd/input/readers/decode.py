"""One stored sample into one view: read, check, decode, crop, resize, mirror.

Of a JPEG only the rectangle of the view is decoded (`prunekd._native`), with the accurate inverse DCT. Where that is
switched off or cannot be done, simplejpeg decodes the whole image: the same pixels at more than twice the cost.
Resizing is torchvision's: bilinear with antialiasing on 8-bit pixels.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import simplejpeg
import torch
from torch.nn import functional as F

from prunekd._native.jpeg_regions import RegionDecoders
from prunekd._native.libjpeg import Library, library
from prunekd._native.machine_code import FULL
from prunekd.store import Payloads, Split
from prunekd.store.format.beton import MODE_RAW

Box = tuple[int, int, int, int]  # left, top, width, height
LEAST_SCALE = 1  # libjpeg's smallest, in eighths
BLOCK = 8  # pixels a side; of an image no larger than this, different scales may have the same size


class ViewDecoder:
    """Views of a split's samples; threads may share it.

    Args:
        scaled: decode a JPEG at 1/2, 1/4 or 1/8 of its size where the view is at least so many times smaller than its
            box. That reads the box's edges off a coarser grid and leaves out high frequencies: pixels differ by some 2
            levels of 256 on average from what decoding in full gives (twice what OpenCV's INTER_AREA differs from it),
            which is why it is not what readers do unless asked to. Without it pixels are those of torchvision's
            resized_crop, up to 1 level.

    Attributes:
        whole: JPEG files are decoded whole.
        description: how JPEG files are decoded, and why if whole.

    Raises:
        ValueError: what the environment variable PRUNEKD_NATIVE asks for cannot be done.
    """

    def __init__(self, split: Split, payloads: Payloads, scaled: bool = False) -> None:
        self._split, self._payloads, self._scaled = split, payloads, scaled
        found = library()
        self._regions = RegionDecoders() if isinstance(found, Library) else None
        self.whole = self._regions is None
        size = " at reduced scale" * scaled
        if isinstance(found, Library):
            self.description = f"crops of JPEGs{size} through {found.path.name}"
        else:
            self.description = f"whole JPEGs{size} through simplejpeg, because {found}"

    def read(self, row: int, box: Sequence[int], flip: bool, out: np.ndarray) -> int:
        """Read, check and decode the view of the sample in a row of the split; returns the bytes read.

        The checksum is held against the index first: flipped bits inside a JPEG's entropy-coded data mostly decode to
        wrong pixels without an error, and the end of a file need not be looked at for most views. It costs about 1 % of
        decoding.

        Args:
            box: left, top, width, height in stored pixels; what lies outside the image is black.
            flip: mirror left-right.
            out: uint8 (size, size, 3).

        Raises:
            ValueError: corrupt; the message is the reason.
            OSError: the storage failed.
        """
        payload = self._payloads.read(row)
        if zlib.crc32(payload) != self._split.crc32[row]:
            raise ValueError("its bytes are not those that were stored (their checksum differs)")
        self.decode(payload, row, box, flip, out)
        return len(payload)

    def decode(self, payload: bytes, row: int, box: Sequence[int], flip: bool, out: np.ndarray) -> None:
        """Decode the view of a payload that is in memory already; see `read`."""
        left, top, width, height = box
        image_width, image_height = int(self._split.widths[row]), int(self._split.heights[row])
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width, image_width), min(top + height, image_height)
        if x0 >= x1 or y0 >= y1:
            out[:] = 0
            return
        inside = (x1 - x0, y1 - y0) == (width, height)
        part = (x0, y0, x1 - x0, y1 - y0)
        if self._split.modes[row] == MODE_RAW:
            view = _raw(payload, image_width, image_height, part)
        else:
            scalable = self._scaled and inside and max(image_width, image_height) > BLOCK
            scale = _scale(width, height, out.shape[0]) if scalable else FULL
            decode = _whole if self._regions is None else self._regions.decode
            view = decode(payload, image_width, image_height, _scaled(part, scale), scale)
        if not inside:
            padded = np.zeros((height, width, 3), dtype=np.uint8)
            padded[y0 - top : y1 - top, x0 - left : x1 - left] = view
            view = padded
        _finish(view, flip, out)


def _raw(payload: bytes, width: int, height: int, part: Box) -> np.ndarray:
    # a bytearray is writable, which torch.from_numpy wants; copying a small raw image costs well under 1 us
    left, top, w, h = part
    pixels = np.frombuffer(bytearray(payload), dtype=np.uint8).reshape(height, width, 3)
    return pixels[top : top + h, left : left + w]


def _whole(payload: bytes, width: int, height: int, part: Box, scale: int) -> np.ndarray:
    """What RegionDecoder.decode does, by way of the whole image."""
    left, top, w, h = part
    found = simplejpeg.decode_jpeg_header(payload)[:2]
    if found != (height, width):  # looked at first: memory for the whole image is taken on the word of its header
        raise ValueError(f"the JPEG is not of the size the index says, {width} x {height}")
    rows, columns = -(-height * scale // FULL), -(-width * scale // FULL)
    pixels = simplejpeg.decode_jpeg(payload, "RGB", min_height=rows, min_width=columns)  # the least scale that has them
    assert pixels.shape[:2] == (rows, columns), (pixels.shape, scale)
    return pixels[top : top + h, left : left + w]


def _scale(width: int, height: int, size: int) -> int:
    """The smallest scale, in eighths, at which the box still has `size` pixels each way."""
    scale = FULL
    while scale > LEAST_SCALE and min(width, height) * (scale // 2) >= size * FULL:
        scale //= 2
    return scale


def _scaled(part: Box, scale: int) -> Box:
    """The pixels of the scaled image that the box touches."""
    left, top, width, height = part
    x0, y0 = left * scale // FULL, top * scale // FULL
    x1, y1 = -(-(left + width) * scale // FULL), -(-(top + height) * scale // FULL)
    return x0, y0, x1 - x0, y1 - y0


def _finish(view: np.ndarray, flip: bool, out: np.ndarray) -> None:
    """Resize to the shape of `out` and mirror."""
    if view.shape == out.shape:
        out[:] = view[:, ::-1] if flip else view
        return
    # Made in this order the strides say channels-last, and PyTorch neither converts the image nor the result.
    image = torch.from_numpy(np.ascontiguousarray(view))[None].permute(0, 3, 1, 2)
    image = F.interpolate(image, size=out.shape[:2], mode="bilinear", antialias=True)
    if flip:
        image = image.flip(3)  # ten times faster than NumPy, which copies pixel by pixel
    out[:] = image[0].permute(1, 2, 0).numpy()
