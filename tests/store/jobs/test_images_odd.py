"""Inputs as they turn up in downloaded datasets: each is stored as Pillow shows it, or refused with a reason."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from prunekd.store.format.beton import MODE_JPEG
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.jobs.images import prepare, to_rgb
from prunekd.store.sources import UnreadableImage, open_source

SIZE = (90, 70)


def picture(seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, size=(5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def turned(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def png(width: int, height: int, depth: int, colour: int, data: bytes, before: bytes = b"") -> bytes:
    """A PNG file by hand, for what Pillow cannot write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), before, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep_rgb() -> bytes:
    rows = np.asarray(picture()).astype(">u2") * 257 - np.arange(SIZE[0])[:, None]  # the lower bytes differ too
    return png(*SIZE, 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.maximum(rows, 0)))


def animated(kind: str, **more: object) -> bytes:
    return encoded(picture(), kind, save_all=True, append_images=[picture(1), picture(2)], **more)


ODD: dict[str, Callable[[], bytes]] = {
    "cmyk.jpg": lambda: encoded(picture().convert("CMYK"), "JPEG", quality=95),
    "cmyk_turned.jpg": lambda: encoded(picture().convert("CMYK"), "JPEG", quality=95, exif=turned(6)),
    "cmyk.tif": lambda: encoded(picture().convert("CMYK"), "TIFF"),
    "deep_rgb.png": deep_rgb,
    "alpha.png": lambda: encoded(picture().convert("RGBA"), "PNG"),
    "grey_alpha.png": lambda: encoded(picture().convert("LA"), "PNG"),
    "alpha.webp": lambda: encoded(picture().convert("RGBA"), "WEBP", lossless=True),
    "palette.png": lambda: encoded(picture().convert("P"), "PNG"),
    "transparent_gif_named.png": lambda: encoded(picture().convert("P"), "GIF", transparency=3),
    "two_colours.png": lambda: encoded(picture().convert("1"), "PNG"),
    "animated_gif_named.png": lambda: animated("GIF"),
    "animated.png": lambda: animated("PNG"),
    "animated.webp": lambda: animated("WEBP", lossless=True),
    "pages.tif": lambda: animated("TIFF"),
    "two_pictures.jpg": lambda: animated("MPO"),
    "grey_turned.jpg": lambda: encoded(picture().convert("L"), "JPEG", exif=turned(8)),
    "turned.png": lambda: encoded(picture(), "PNG", exif=turned(5)),
    "turned.webp": lambda: encoded(picture(), "WEBP", lossless=True, exif=turned(7)),
    "turned.tif": lambda: encoded(picture(), "TIFF", exif=turned(6)),
    "png_named.jpg": lambda: encoded(picture(), "PNG"),
    "line_end_behind_it.jpg": lambda: encoded(picture(), "JPEG") + b"\n",
}


@pytest.mark.parametrize("name", ODD)
def test_what_pillow_shows_is_stored(name: str) -> None:
    data = ODD[name]()
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(to_rgb(data), shown)
    raw = prepare(data, ConvertSettings(mode="raw"))
    assert np.array_equal(np.frombuffer(raw.payload, np.uint8).reshape(raw.height, raw.width, 3), shown)
    sample = prepare(data, ConvertSettings(mode="jpeg"))
    assert sample.mode == MODE_JPEG
    stored = Image.open(io.BytesIO(sample.payload))
    assert stored.getexif().get(0x0112, 1) == 1  # some readers would turn it once more
    assert (stored.mode, stored.size) in {(mode, shown.shape[1::-1]) for mode in ("RGB", "L")}
    pixels = simplejpeg.decode_jpeg(sample.payload, strict=True)
    difference = np.abs(pixels.astype(int) - shown)
    assert difference.max() == 0 if sample.how == "verbatim" else difference.mean() < 15  # dithered palettes: 13


def test_deep_grey_keeps_its_upper_bits_where_pillow_would_clip() -> None:
    deep = np.arange(2000, dtype=np.uint16).reshape(40, 50) * 32
    data = encoded(Image.fromarray(deep), "PNG")
    assert np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[20:].min() == 255
    assert np.array_equal(to_rgb(data), np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2))


def header_of(kind: str, width: int, height: int) -> bytes:
    """A small file that claims to be large."""
    if kind == "png":
        return png(width, height, 8, 2, b"\0" * 100)
    data = bytearray(encoded(picture(), {"jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF"}[kind]))
    if kind == "jpg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", width, height)
        at = data.index(b",", 13 + 768)
        data[at + 5 : at + 9] = struct.pack("<HH", width, height)
    elif kind == "bmp":
        data[18:26] = struct.pack("<ii", width, height)
    else:
        entries = struct.unpack_from("<I", data, 4)[0] + 2
        for tag, value in ((256, width), (257, height)):
            at = next(at for at in range(entries, len(data), 12) if struct.unpack_from("<H", data, at)[0] == tag)
            struct.pack_into("<HII", data, at + 2, 4, 1, value)
    return bytes(data)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "tif"])
def test_a_file_that_claims_to_be_large_is_refused_before_memory_is_taken(kind: str) -> None:
    data = header_of(kind, 60000, 50000)
    assert Image.open(io.BytesIO(header_of(kind, 90, 80))).size == (90, 80)  # the claim stands where it is read
    for settings in (ConvertSettings(), ConvertSettings(mode="raw")):
        with pytest.raises(UnreadableImage, match=r"pixels|DecompressionBomb"):
            prepare(data, settings)


def test_text_that_unpacks_without_end_is_refused() -> None:
    body = b"comment\0\0" + zlib.compress(bytes(70 << 20))
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    with pytest.raises(UnreadableImage, match="too large"):
        to_rgb(png(2, 2, 8, 2, bytes(14), before=chunk))


CUT: dict[str, Callable[[], bytes]] = {
    "end_mark.jpg": lambda: encoded(picture(), "JPEG")[:-2],
    "progressive.jpg": lambda: encoded(picture(), "JPEG", progressive=True)[:-200],
    "half.jpg": lambda: encoded(picture(), "JPEG")[:900],
    "half.png": lambda: encoded(picture(), "PNG")[:900],
    "half.webp": lambda: encoded(picture(), "WEBP", lossless=True)[:900],
    "half.tif": lambda: encoded(picture(), "TIFF")[:900],
    "half_gif_named.png": lambda: encoded(picture(), "GIF")[:1500],
}


@pytest.mark.parametrize("name", CUT)
def test_what_pillow_calls_truncated_is_refused(name: str) -> None:
    data = CUT[name]()
    with pytest.raises(Exception, match=r"\w"):  # Pillow raises nearly every type
        Image.open(io.BytesIO(data)).load()
    for settings in (ConvertSettings(), ConvertSettings(mode="raw")):
        with pytest.raises(UnreadableImage, match=r"\w"):
            prepare(data, settings)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_file_ends_in_the_store_or_in_the_list_of_refused_ones(tmp_path: Path) -> None:
    files = {name: make() for name, make in {**ODD, **CUT}.items()}
    files |= {f"large_{kind}.png": header_of(kind, 60000, 50000) for kind in ("png", "jpg", "gif", "bmp", "tif")}
    for name, data in files.items():
        path = tmp_path / "data" / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    store = convert(open_source(tmp_path / "data"), tmp_path / "store", ConvertSettings(max_quarantined=1.0))
    assert sorted(store.split("train").keys()) == sorted(f"a/{name}" for name in ODD)
    refused = {entry["key"]: entry["reason"] for entry in store.quarantined}
    assert set(refused) == {f"a/{name}" for name in files} - {f"a/{name}" for name in ODD}
    assert all(reason and "\n" not in reason for reason in refused.values())
