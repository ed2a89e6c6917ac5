"""What becomes of one input: verbatim, encoded, raw or refused."""

import io
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from prunekd.store.format.beton import MODE_JPEG, MODE_RAW
from prunekd.store.jobs.images import prepare, to_rgb
from prunekd.store.jobs.settings import ConvertSettings
from prunekd.store.sources import UnreadableImage

SETTINGS = ConvertSettings()


def picture(size: tuple[int, int] = (120, 90), seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def with_orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True, "quality": 30}])
def test_ordinary_jpegs_pass_verbatim(grey: bool, more: dict[str, object]) -> None:
    data = encoded(picture().convert("L") if grey else picture(), **more)
    sample = prepare(data, SETTINGS)
    assert sample.payload == data
    assert (sample.how, sample.mode, sample.width, sample.height) == ("verbatim", MODE_JPEG, 120, 90)


@pytest.mark.parametrize("orientation", range(1, 10))
def test_every_orientation_comes_out_upright(orientation: int) -> None:
    data = encoded(picture(), quality=98, exif=with_orientation(orientation))
    sample = prepare(data, SETTINGS)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(to_rgb(data), expected)
    assert (sample.how == "verbatim") == (orientation in (1, 9))
    pixels = simplejpeg.decode_jpeg(sample.payload)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 3


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_exif_that_cannot_be_read_counts_as_upright() -> None:
    data = encoded(picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert prepare(data, SETTINGS).payload == data


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["cut", "noise"]), at=st.floats(0.02, 0.97), seed=st.integers(0, 2**32 - 1))
def test_damage_to_a_jpeg_is_refused_or_harmless_to_every_decoder(kind: str, at: float, seed: int) -> None:
    """Whatever passes is a stream that libjpeg decodes in full without a warning."""
    data = bytearray(encoded(picture(), progressive=seed % 2 == 1))
    place = int(at * len(data))
    if kind == "cut":
        data = data[:place]
    else:
        data[place : place + 12] = np.random.default_rng(seed).bytes(12)
    try:
        sample = prepare(bytes(data), SETTINGS)
    except UnreadableImage:
        return
    assert kind != "cut"
    assert simplejpeg.decode_jpeg(sample.payload, strict=True).shape == (sample.height, sample.width, 3)


def test_a_jpeg_that_pillow_decodes_to_wrong_pixels_is_refused() -> None:
    data = encoded(picture(), restart_marker_rows=1)
    at = data.index(b"\xff\xd2")
    damaged = data[: at - 9] + bytes(range(1, 90)) + data[at:]
    Image.open(io.BytesIO(damaged)).load()  # not a word
    with pytest.raises(UnreadableImage, match="Corrupt JPEG data"):
        prepare(damaged, SETTINGS)


def test_a_png_whose_pixels_are_damaged_is_refused() -> None:
    data = encoded(picture(), "PNG")
    at = data.index(b"IDAT") + 4
    size = int.from_bytes(data[at - 8 : at - 4], "big")
    body = data[at : at + size // 2] + b"\xff" * (size - size // 2)  # half of the stream, with a right checksum
    damaged = data[:at] + body + zlib.crc32(b"IDAT" + body).to_bytes(4, "big") + data[at + size + 4 :]
    with pytest.raises(UnreadableImage, match="OSError"):
        prepare(damaged, SETTINGS)


STARTS = (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0")


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=80, deadline=None)
@given(head=st.sampled_from(STARTS), rest=st.binary(max_size=200))
def test_noise_is_refused_with_a_reason(head: bytes, rest: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"\S"):
        prepare(head + rest, SETTINGS)


def test_postscript_is_never_started() -> None:
    with pytest.raises(UnreadableImage, match="known format"):
        to_rgb(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_pixel_bombs_are_refused_by_their_header(kind: str) -> None:
    data = bytearray(encoded(picture((64, 64)), kind))
    if kind == "JPEG":  # a frame header that claims 60000 x 60000
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = (60000).to_bytes(2, "big") * 2
    with pytest.raises(UnreadableImage, match=r"pixels|known format"):
        prepare(bytes(data), ConvertSettings(max_pixels=64 * 64 - 1))


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400), limit=st.integers(1, 300))
def test_shrinking_keeps_the_shape_and_never_enlarges(width: int, height: int, limit: int) -> None:
    image = np.full((height, width, 3), 100, dtype=np.uint8)
    sample = prepare(image, ConvertSettings(max_side=limit, mode="raw"))
    longest = max(width, height)
    assert max(sample.width, sample.height) == min(longest, limit)
    scale = min(1, limit / longest)
    assert abs(sample.width - width * scale) <= 1
    assert abs(sample.height - height * scale) <= 1
    assert set(sample.payload) == {100}


@pytest.mark.parametrize(
    ("mode", "input_kind", "side", "expected"),
    [
        ("auto", "jpeg", 32, MODE_JPEG),
        ("auto", "jpeg", 200, MODE_JPEG),
        ("auto", "png", 64, MODE_RAW),
        ("auto", "png", 65, MODE_JPEG),
        ("auto", "array", 64, MODE_RAW),
        ("auto", "array", 65, MODE_JPEG),
        ("jpeg", "array", 40, MODE_JPEG),
        ("raw", "jpeg", 200, MODE_RAW),
        ("raw", "png", 200, MODE_RAW),
    ],
)
def test_modes(mode: str, input_kind: str, side: int, expected: int) -> None:
    image = picture((side, side - 3))
    data = np.asarray(image) if input_kind == "array" else encoded(image, input_kind.upper(), quality=95)
    sample = prepare(data, ConvertSettings(mode=mode))
    assert sample.mode == expected
    pixels = (
        simplejpeg.decode_jpeg(sample.payload)
        if sample.mode == MODE_JPEG
        else np.frombuffer(sample.payload, np.uint8).reshape(sample.height, sample.width, 3)
    )
    reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) if isinstance(data, bytes) else data
    difference = np.abs(pixels.astype(int) - reference)
    assert difference.max() == 0 if expected == MODE_RAW or input_kind == "jpeg" else difference.mean() < 7


def test_quality_is_what_encoding_uses() -> None:
    sizes = [len(prepare(np.asarray(picture()), ConvertSettings(quality=q, mode="jpeg")).payload) for q in (10, 60, 98)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3


@pytest.mark.filterwarnings("error")
def test_a_transparent_palette_is_converted_without_a_warning() -> None:
    data = encoded(picture().convert("P"), "PNG", transparency=bytes(range(200)))
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., :3]
    assert np.array_equal(to_rgb(data), expected)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_arrays_of_every_layout(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    rgb = to_rgb(image)
    assert rgb.shape == (5, 7, 3)
    assert np.array_equal(rgb, np.broadcast_to(image.reshape(5, 7, -1), (5, 7, 3)))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8)]
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(UnreadableImage):
        to_rgb(image)


def test_float_images_are_refused_rather_than_clipped() -> None:
    with pytest.raises(UnreadableImage, match="32-bit"):
        to_rgb(encoded(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF"))


def test_a_sample_larger_than_a_page_is_refused_with_the_remedy() -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(900, 900, 3), dtype=np.uint8)
    with pytest.raises(UnreadableImage, match="max_side"):
        prepare(noise, ConvertSettings(mode="raw", page_size=1 << 21))


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_side", -1), ("max_side", 70000), ("quality", 0), ("quality", 101), ("workers", -1), ("mode", "png"),
     ("page_size", 5), ("chunk_size", 0), ("max_pixels", 0), ("max_pixels", 10**9)],
)  # fmt: skip
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"(?i){name.replace('_', '.')}.*{value}"):
        ConvertSettings(**{name: value})  # type: ignore[arg-type]
