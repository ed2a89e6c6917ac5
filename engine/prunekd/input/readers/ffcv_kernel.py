"""FFCV's C functions put together so that a planned view comes out: read, decode, crop and resize, mirror.

The work is done by libffcv, the C library of FFCV: `imdecode` (libjpeg-turbo with its fast inverse DCT) and `resize`
(OpenCV's INTER_AREA: the mean over the area where a view shrinks, linear where it grows). Its `imdecode` returns what
libjpeg-turbo said of the stream, warnings included; FFCV's own decoders drop that value, this one does not.

The functions are bound by name instead of as ctypes pointers, because Numba caches no code that holds a pointer.
"""

import ctypes

import llvmlite.binding
import numpy as np
from ffcv import libffcv
from ffcv.utils import cast_int_to_byte_ptr
from numba import carray, njit, prange, types

from prunekd.common.private_apis import external_function
from prunekd.store.format.beton import MODE_RAW
from prunekd.store.format.crc import crc

# Columns of a request, one row per sample of a batch.
ROW, OFFSET, SIZE, CHECKSUM, MODE, WIDTH, HEIGHT, LEFT, TOP, BOX_WIDTH, BOX_HEIGHT, FLIP = range(12)
# Entries of a head: file descriptor, address of the output pixels, output side, where the pixels begin in the scratch.
FILE, OUT, SIDE, PIXELS = range(4)

OUT_OF_STEP = 1
REASONS = {
    2: "the file ends inside its bytes or cannot be read",
    3: "its bytes hold no JPEG frame header",
    4: "the JPEG is not of the size the index says",
    5: "libjpeg-turbo finds its stream corrupt",
    6: "its bytes are not those that were stored (their checksum differs)",
}
_SHORT, _NO_FRAME, _OTHER_SIZE, _CORRUPT, _OTHER_BYTES = REASONS

_READ = external_function("prunekd_ffcv_pread", types.int64, types.int32, types.uintp, types.uint64, types.int64)
_DECODE = external_function(
    "prunekd_ffcv_imdecode",
    types.int32,
    *[types.uintp, types.uint64, types.uint32, types.uint32, types.uintp, *[types.uint32] * 6, *[types.uint8] * 2],
)
_RESIZE = external_function("prunekd_ffcv_resize", types.void, *[types.int64] * 11)


def bind() -> None:
    """Tell the compiler where libffcv's functions are; before the first call of `decode_batch`."""
    functions = {_READ: libffcv.read_c, _DECODE: libffcv.ctypes_imdecode, _RESIZE: libffcv.ctypes_resize}
    for function, pointer in functions.items():
        llvmlite.binding.add_symbol(function.symbol, ctypes.cast(pointer, ctypes.c_void_p).value)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def decode_batch(rows, head, requests, scratch, tables):  # type: ignore[no-untyped-def]
    """Decode a batch's views and return what went wrong.

    Args:
        rows: int64 (n,), what FFCV believes the batch to be.
        head: int64 (4,), see FILE.
        requests: int64 (n or more, 12), see ROW.
        scratch: uint8 (threads, bytes): the payload, from head[PIXELS] on its pixels, then as much room again.
        tables: uint32 (8, 256), `crc_tables` of the index's checksums.

    Returns:
        int32 (n,): 0, OUT_OF_STEP or a key of REASONS. The pixels, uint8 (n, side, side, 3), are at head[OUT]; those
        of a sample with another code than 0 are undefined.
    """
    count, parts = len(rows), len(scratch)
    view_bytes = 3 * head[SIDE] * head[SIDE]
    codes = np.zeros(count, np.int32)
    for part in prange(parts):
        for k in range(part, count, parts):
            if requests[k, ROW] != rows[k]:
                codes[k] = OUT_OF_STEP
            else:
                codes[k] = _decode_one(head, requests[k], scratch[part], tables, head[OUT] + k * view_bytes)
    return codes


@njit(cache=True, nogil=True, error_model="numpy")
def _decode_one(head, request, scratch, tables, target):  # type: ignore[no-untyped-def]
    size, width, height = request[SIZE], request[WIDTH], request[HEIGHT]
    address = scratch.ctypes.data
    done = 0
    while done < size:
        more = _READ(head[FILE], address + done, size - done, request[OFFSET] + done)
        if more <= 0:
            return _SHORT
        done += more
    if crc(scratch[:size], tables) != request[CHECKSUM]:
        return _OTHER_BYTES
    start = 0
    if request[MODE] != MODE_RAW:
        frame_width, frame_height = _frame_size(scratch[:size])
        if frame_width == 0:
            return _NO_FRAME
        if frame_width != width or frame_height != height:  # the pixels would lie elsewhere in the buffer
            return _OTHER_SIZE
        start = head[PIXELS]
        if _DECODE(address, size, height, width, address + start, height, width, 0, 0, 1, 1, 0, 0) != 0:
            return _CORRUPT
    _write_view(scratch, start, head[PIXELS], request, target, head[SIDE])
    return 0


@njit(cache=True, nogil=True, error_model="numpy")
def _write_view(scratch, start, pixels, request, target, side):  # type: ignore[no-untyped-def]
    """Crop, resize and mirror the image at `start` of the scratch into the pixels at the address `target`."""
    width, height = request[WIDTH], request[HEIGHT]
    left, top, box_width, box_height = request[LEFT], request[TOP], request[BOX_WIDTH], request[BOX_HEIGHT]
    if left < 0 or top < 0 or left + box_width > width or top + box_height > height:
        image = scratch[start : start + 3 * width * height].reshape((height, width, 3))
        start = pixels + 3 * width * height  # a box is as large as its image where it may leave it
        padded = scratch[start : start + 3 * box_width * box_height].reshape((box_height, box_width, 3))
        padded[:] = 0
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + box_width, width), min(top + box_height, height)
        if x1 > x0 and y1 > y0:
            padded[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
        left, top, width, height = 0, 0, box_width, box_height
    source = scratch.ctypes.data + start
    _RESIZE(0, source, height, width, top, top + box_height, left, left + box_width, target, side, side)
    if request[FLIP]:
        view = carray(cast_int_to_byte_ptr(target), (side, side, 3))
        for y in range(side):
            for x in range(side // 2):
                for c in range(3):
                    view[y, x, c], view[y, side - 1 - x, c] = view[y, side - 1 - x, c], view[y, x, c]


@njit(cache=True, nogil=True, error_model="numpy")
def _frame_size(data):  # type: ignore[no-untyped-def]
    """Width and height in a JPEG's frame header (ITU-T T.81, B.2.2), zeros if there is none before the first scan."""
    size = len(data)
    if size < 4 or data[0] != 0xFF or data[1] != 0xD8:
        return 0, 0
    at = 2
    while at + 9 <= size and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            at += 2
        elif marker == 0xD9 or marker == 0xDA:  # the image ends or its first scan begins
            break
        elif 0xC0 <= marker <= 0xCF and marker != 0xC4 and marker != 0xC8 and marker != 0xCC:
            return data[at + 7] * 256 + data[at + 8], data[at + 5] * 256 + data[at + 6]
        else:
            at += 2 + data[at + 2] * 256 + data[at + 3]
    return 0, 0
