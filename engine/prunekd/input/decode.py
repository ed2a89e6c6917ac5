"""One stored sample into one view: decode, crop, resize, flip.

JPEG is decoded by libjpeg-turbo through simplejpeg (chosen by benchmarks/decoders.py; it also refuses corrupt streams),
resizing is torchvision's: bilinear with antialiasing on 8-bit pixels.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import simplejpeg
import torch
from torch.nn import functional as F

from prunekd.store.beton import MODE_RAW
from prunekd.store.index import Payloads, Split


def read_view(split: Split, payloads: Payloads, row: int, box: Sequence[int], flip: bool, out: np.ndarray) -> int:
    """Read, check and decode one sample's view into `out`, uint8 (size, size, 3); returns the bytes read.

    The checksum is held against the index first: flipped bits inside a JPEG's entropy-coded data mostly decode to wrong
    pixels without an error. It costs about 1 % of decoding.

    Raises:
        ValueError: corrupt; the message is the reason.
        OSError: the storage failed.
    """
    payload = payloads.read(row)
    if zlib.crc32(payload) != split.crc32[row]:
        raise ValueError("its bytes are not those that were stored (their checksum differs)")
    pixels = decode(payload, split.modes[row], int(split.widths[row]), int(split.heights[row]))
    write_view(pixels, box, flip, out)
    return len(payload)


def decode(payload: bytes, mode: int, width: int, height: int) -> np.ndarray:
    """A payload's pixels, RGB uint8 (height, width, 3).

    Raises:
        ValueError: a corrupt payload, or one that is not of the size the index says.
    """
    if mode == MODE_RAW:
        # a bytearray is writable, which torch.from_numpy wants; copying a small raw image costs well under 1 us
        return np.frombuffer(bytearray(payload), dtype=np.uint8).reshape(height, width, 3)
    pixels = simplejpeg.decode_jpeg(payload, "RGB")
    if pixels.shape != (height, width, 3):
        raise ValueError(f"the JPEG is {pixels.shape[1]} x {pixels.shape[0]}, the index says {width} x {height}")
    return pixels


def write_view(pixels: np.ndarray, box: Sequence[int], flip: bool, out: np.ndarray) -> None:
    """Write the view of `pixels` (h, w, 3) into `out`, uint8 (size, size, 3).

    Args:
        box: left, top, width, height; what lies outside the image is black.
        flip: mirror left-right.
    """
    left, top, width, height = box
    if left >= 0 and top >= 0 and left + width <= pixels.shape[1] and top + height <= pixels.shape[0]:
        view = pixels[top : top + height, left : left + width]
    else:
        view = _padded(pixels, left, top, width, height)
    if view.shape != out.shape:
        view = _resized(view, out.shape[0], out.shape[1])
    out[:] = view[:, ::-1] if flip else view


def _padded(pixels: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    view = np.zeros((height, width, 3), dtype=np.uint8)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, pixels.shape[1]), min(top + height, pixels.shape[0])
    if x1 > x0 and y1 > y0:
        view[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    return view


def _resized(view: np.ndarray, height: int, width: int) -> np.ndarray:
    image = torch.from_numpy(np.ascontiguousarray(view)).permute(2, 0, 1)[None]
    resized = F.interpolate(image, size=(height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
