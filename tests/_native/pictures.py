"""JPEG files for the tests, and whole decodes of them."""

import io

import numpy as np
import simplejpeg
from PIL import Image


def jpeg(width: int, height: int, seed: int = 0, **settings: object) -> bytes:
    """A file with smooth areas, edges and noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels[height // 3 :, width // 2 :] //= 2
    pixels += rng.integers(-20, 21, size=pixels.shape, dtype=np.int16)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    mode = settings.pop("mode", "RGB")
    image.convert(str(mode)).save(file, "JPEG", **settings)
    return file.getvalue()


def whole(data: bytes, width: int, height: int, scale: int) -> np.ndarray:
    """All of a file at a scale, by simplejpeg."""
    size = -(-height * scale // 8), -(-width * scale // 8)
    pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=size[0], min_width=size[1])
    assert pixels.shape == (*size, 3)
    return pixels
