"""From an input to the bytes of a sample: pass a JPEG through, or decode, shrink and encode."""

import io
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from prunekd.store.format.beton import MODE_JPEG, MODE_RAW
from prunekd.store.format.jpeg import JPEG_MAX_SIDE, SOI, read_jpeg_header
from prunekd.store.jobs.settings import ConvertSettings
from prunekd.store.sources.source import UnreadableImage

RAW_MAX_SIDE = 64  # in mode `auto`: raw up to this side, where a JPEG header would be half of the file
# EPS and a few others start programs or fetch files: only these are opened.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF")
_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Bytes of a sample and what the metadata says of them; `how` is `verbatim`, `encoded` or `raw`."""

    payload: bytes
    mode: int
    width: int
    height: int
    how: str


def prepare(data: bytes | np.ndarray, settings: ConvertSettings) -> Sample:
    """Make the stored bytes of one input.

    Raises:
        UnreadableImage: it cannot be decoded, is a pixel bomb, or does not fit a page.
    """
    is_jpeg = isinstance(data, bytes) and data.startswith(SOI)
    sample = _pass_through(data, settings) if isinstance(data, bytes) and is_jpeg and settings.mode != "raw" else None
    if sample is None:
        image = _shrink(to_rgb(data, settings.max_pixels), settings.max_side or JPEG_MAX_SIDE)
        small = max(image.shape[:2]) <= RAW_MAX_SIDE
        raw = settings.mode == "raw" or (settings.mode == "auto" and not is_jpeg and small)
        sample = _raw(image) if raw else _encode(image, settings.quality)
    if len(sample.payload) > settings.page_size:
        raise UnreadableImage(
            f"{len(sample.payload)} bytes do not fit a page of {settings.page_size}; lower max_side or raise page_size"
        )
    return sample


def to_rgb(data: bytes | np.ndarray, max_pixels: int = 100_000_000) -> np.ndarray:
    """Decode an input to uint8 (height, width, 3), upright as EXIF says.

    Bytes go through Pillow: palette and CMYK are converted, alpha is dropped, 16-bit grey keeps its upper 8 bits. Of
    several frames the first is taken. Orientation data that cannot be read counts as none. Arrays are uint8 (h, w),
    (h, w, 1) or (h, w, 3).

    Raises:
        UnreadableImage: with the reason; also where the header states more than `max_pixels`.
    """
    if isinstance(data, np.ndarray):
        return _array_to_rgb(data, max_pixels)
    if not data:
        raise UnreadableImage("the file is empty")
    if data.startswith(SOI):
        _check_jpeg_stream(data, max_pixels)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(image.width, image.height, max_pixels)
            image.load()  # before EXIF is asked for, whose errors are forgiven: those of the pixels must not be
            return np.ascontiguousarray(np.asarray(_eight_bit(_upright(image)).convert("RGB")))
    except (MemoryError, UnreadableImage):
        raise
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged input
        raise UnreadableImage(_reason(error)) from error


def _pass_through(data: bytes, settings: ConvertSettings) -> Sample | None:
    """The JPEG file as it is if every reader of the store can decode it as it is, else None."""
    header = read_jpeg_header(data)
    if header is None:
        return None
    _check_pixels(header.width, header.height, settings.max_pixels)
    longest = max(header.width, header.height)
    if not header.common or longest > (settings.max_side or JPEG_MAX_SIDE) or len(data) > settings.page_size:
        return None
    if header.app1 and _jpeg_orientation(data) != 1:
        return None
    try:
        # Strict, grey and at the smallest DCT scale: all entropy-coded data is read, little is transformed.
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        simplejpeg.decode_jpeg(data, colorspace="GRAY", min_height=1, min_width=1)
    except ValueError:
        return None
    if (height, width) != (header.height, header.width):
        return None
    return Sample(payload=data, mode=MODE_JPEG, width=width, height=height, how="verbatim")


def _check_jpeg_stream(data: bytes, max_pixels: int) -> None:
    """Refuse a JPEG stream that libjpeg calls corrupt or cut short: Pillow would make wrong pixels of it in silence."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        _check_pixels(width, height, max_pixels)
        color = "CMYK" if space in ("CMYK", "YCCK") else "RGB"
        simplejpeg.decode_jpeg(data, colorspace=color, min_height=1, min_width=1)
    except UnreadableImage:
        raise
    except ValueError as error:
        reason = str(error)
        if "corrupt" in reason.lower() or "premature" in reason.lower():
            raise UnreadableImage(reason) from error  # other reasons: not for this decoder, perhaps for Pillow


def _jpeg_orientation(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _orientation(image)
    except MemoryError:
        raise
    except Exception as error:
        raise UnreadableImage(_reason(error)) from error


def _orientation(image: Image.Image) -> int:
    """EXIF (or XMP) orientation, 1 to 8; 1 where it is absent, out of range or unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # damaged EXIF: the pixels are fine, and other readers ignore EXIF altogether
        return 1
    return value if value in _TRANSPOSE else 1


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it also writes the EXIF anew, which fails on odd entries that do not matter here.
    turn = _TRANSPOSE.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _eight_bit(image: Image.Image) -> Image.Image:
    """An image that `convert("RGB")` takes without clipping or warning."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UnreadableImage(f"32-bit samples (mode {image.mode}) have no range that says what white is")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    return image


def _array_to_rgb(data: np.ndarray, max_pixels: int) -> np.ndarray:
    if data.dtype != np.uint8 or data.ndim not in (2, 3) or (data.ndim == 3 and data.shape[2] not in (1, 3)):
        raise UnreadableImage(f"an array of {data.dtype} {data.shape} is not uint8 (h, w), (h, w, 1) or (h, w, 3)")
    if 0 in data.shape:
        raise UnreadableImage(f"the image is empty: {data.shape}")
    _check_pixels(data.shape[1], data.shape[0], max_pixels)
    planes = data if data.ndim == 3 else data[:, :, None]
    return np.ascontiguousarray(np.broadcast_to(planes, (*planes.shape[:2], 3)))


def _shrink(image: np.ndarray, max_side: int) -> np.ndarray:
    """Scale down so that the longest side is `max_side`; Lanczos, after box averaging to no less than 3 x the size."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= max_side:
        return image
    size = tuple(max(1, round(side * max_side / longest)) for side in (width, height))
    small = Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.ascontiguousarray(np.asarray(small))


def _encode(image: np.ndarray, quality: int) -> Sample:
    payload = simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling="420")
    return Sample(payload=payload, mode=MODE_JPEG, width=image.shape[1], height=image.shape[0], how="encoded")


def _raw(image: np.ndarray) -> Sample:
    return Sample(payload=image.tobytes(), mode=MODE_RAW, width=image.shape[1], height=image.shape[0], how="raw")


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableImage(f"{width} x {height} pixels are more than max_pixels = {max_pixels}")


def _reason(error: Exception) -> str:
    """One line that says what a decoder raised."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image of a known format"
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
