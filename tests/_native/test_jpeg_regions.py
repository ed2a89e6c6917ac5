"""Rectangles of JPEG files against whole decodes, and what becomes of files that are none."""

import contextlib
import ctypes.util
import io
import threading
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as T

from prunekd._native import libjpeg as jpeg_library
from prunekd._native.jpeg_regions import RegionDecoder
from prunekd._native.libjpeg import Library, library
from prunekd.input.readers.decode import ViewDecoder
from prunekd.store import Store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source

SCALES = (8, 4, 2, 1)


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


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_rectangle_is_that_of_the_whole_image(data: st.DataObject) -> None:
    scale = data.draw(st.sampled_from(SCALES))
    least = 1 if scale == 8 else 9  # of a smaller image the scale does not follow from the size that simplejpeg is told
    width, height = data.draw(st.integers(least, 150)), data.draw(st.integers(least, 150))
    file = jpeg(
        width,
        height,
        seed=data.draw(st.integers(0, 99)),
        quality=data.draw(st.integers(10, 100)),
        subsampling=data.draw(st.sampled_from(("4:4:4", "4:2:2", "4:2:0"))),
        progressive=data.draw(st.booleans()),
        mode=data.draw(st.sampled_from(("RGB", "RGB", "L"))),
        restart_marker_blocks=data.draw(st.sampled_from((0, 0, 3))),
    )
    expected = whole(file, width, height, scale)
    left = data.draw(st.integers(0, expected.shape[1] - 1))
    top = data.draw(st.integers(0, expected.shape[0] - 1))
    w, h = data.draw(st.integers(1, expected.shape[1] - left)), data.draw(st.integers(1, expected.shape[0] - top))
    found = RegionDecoder().decode(file, width, height, (left, top, w, h), scale)
    assert np.array_equal(found, expected[top : top + h, left : left + w])


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
def test_every_chroma_subsampling_is_exact(sampling: str) -> None:
    pixels = simplejpeg.decode_jpeg(jpeg(131, 117, quality=95))
    file = simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling=sampling)
    expected, decoder = simplejpeg.decode_jpeg(file), RegionDecoder()
    rng = np.random.default_rng(0)
    for _ in range(300):
        left, top = int(rng.integers(131)), int(rng.integers(117))
        w, h = int(rng.integers(1, 132 - left)), int(rng.integers(1, 118 - top))
        found = decoder.decode(file, 131, 117, (left, top, w, h))
        assert np.array_equal(found, expected[top : top + h, left : left + w]), (left, top, w, h)


def test_errors_are_told_and_the_decoder_goes_on() -> None:
    file, decoder = jpeg(90, 80), RegionDecoder()
    box = (5, 6, 70, 74)
    good = decoder.decode(file, 90, 80, box).copy()
    cmyk = jpeg(90, 80, mode="CMYK")
    for bad, reason in (
        (b"", "Empty input"),
        (b"no image at all", "Not a JPEG"),
        (file[: len(file) // 2], "premature end"),
        (cmyk, "Unsupported color conversion"),
        (jpeg(90, 81), "not of the size the index says, 90 x 80"),
        (jpeg(91, 80), "not of the size the index says"),
    ):
        with pytest.raises(ValueError, match=reason):
            decoder.decode(bad, 90, 80, box)
        assert np.array_equal(decoder.decode(file, 90, 80, box), good)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_gives_pixels_or_a_value_error(data: st.DataObject) -> None:
    file = bytearray(jpeg(64, 48, progressive=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    del file[data.draw(st.integers(len(file) // 2, len(file))) :]
    decoder = RegionDecoder()
    with contextlib.suppress(ValueError):
        assert decoder.decode(bytes(file), 64, 48, (0, 0, 64, 48)).shape == (48, 64, 3)
    assert decoder.decode(jpeg(64, 48), 64, 48, (1, 2, 30, 40)).shape == (40, 30, 3)


def test_many_decoders_in_threads_agree_and_leave_nothing_behind() -> None:
    file = jpeg(300, 200)
    expected = simplejpeg.decode_jpeg(file)
    wrong: list[int] = []

    def work(seed: int) -> None:
        decoder, rng = RegionDecoder(), np.random.default_rng(seed)
        for _ in range(100):
            left, top = int(rng.integers(200)), int(rng.integers(100))
            found = decoder.decode(file, 300, 200, (left, top, 90, 80))
            if not np.array_equal(found, expected[top : top + 80, left : left + 90]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for _ in range(200):
        RegionDecoder()
    before = resident()
    for _ in range(20_000):
        RegionDecoder()
    assert resident() - before < 4 << 20  # each leaves 600 bytes and more where it is not destroyed


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Noisy photographs of 200 to 400 pixels a side: the harder case for scaled decoding."""
    folder = tmp_path_factory.mktemp("regions")
    rng = np.random.default_rng(1)
    for k in range(12):
        width, height = rng.integers(200, 400, size=2).tolist()
        path = folder / "source" / "train" / f"class{k % 2}" / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(width, height, seed=k, quality=90))
    return convert(open_source(folder / "source"), folder / "store", ConvertSettings())


def differences(store: Store, scaled: bool, size: int) -> list[np.ndarray]:
    """|ViewDecoder - torchvision's resized_crop| for boxes of at least 2 x size pixels each way."""
    split = store.split("train")
    found = []
    rng = np.random.default_rng(0)
    with split.payloads() as payloads:
        decoder = ViewDecoder(split, payloads, scaled=scaled)
        for row in range(len(split)):
            width, height = int(split.widths[row]), int(split.heights[row])
            w, h = int(rng.integers(2 * size, width)), int(rng.integers(2 * size, height))
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            out = np.empty((size, size, 3), dtype=np.uint8)
            decoder.read(row, (left, top, w, h), row % 2 == 1, out)
            pixels = np.array(Image.open(io.BytesIO(payloads.read(row))).convert("RGB"))
            image = torch.from_numpy(pixels).permute(2, 0, 1)
            expected = T.resized_crop(image, top, left, h, w, [size, size], antialias=True)
            expected = T.horizontal_flip(expected) if row % 2 else expected
            found.append(np.abs(out.astype(int) - expected.permute(1, 2, 0).numpy()))
    return found


def test_views_are_torchvisions_to_a_level_unless_scaled_is_asked_for(photographs: Store) -> None:
    for size in (24, 64, 90):
        assert max(d.max() for d in differences(photographs, False, size)) <= 1
        scaled = differences(photographs, True, size)
        assert max(d.max() for d in scaled) > 1  # it did decode at a reduced scale
        assert np.mean([d.mean() for d in scaled]) <= 3
        assert max(d.mean() for d in scaled) <= 6


def test_without_the_library_pixels_are_the_same_and_it_is_said(
    photographs: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = photographs.split("train")
    boxes = [(0, 0, 150, 160), (11, 7, 120, 33), (-20, 5, 100, 100), (150, -30, 100, 90), (900, 0, 10, 10)]
    shape = (len(boxes), 64, 64, 3)
    with split.payloads() as payloads:
        regions, without = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        usual = ViewDecoder(split, payloads)
        assert "libjpeg" in usual.description
        monkeypatch.setattr(jpeg_library, "_loaded_libjpeg", lambda: None)
        library.cache_clear()
        with pytest.warns(RuntimeWarning, match="decoded whole.*no libjpeg"):
            plain = ViewDecoder(split, payloads)
        library.cache_clear()
        assert "simplejpeg" in plain.description
        for k, box in enumerate(boxes):
            usual.read(3, box, k % 2 == 0, regions[k])
            plain.read(3, box, k % 2 == 0, without[k])
    assert np.array_equal(regions, without)
    assert not regions[-1].any()


def test_libraries_that_will_not_do_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def reason(path: Path) -> str:
        monkeypatch.setattr(jpeg_library, "_loaded_libjpeg", lambda: path)
        library.cache_clear()
        found = library()
        library.cache_clear()
        assert isinstance(found, str)
        return found

    assert "cannot be opened" in reason(tmp_path / "libjpeg.so.62")
    maths = ctypes.util.find_library("m")
    assert maths is not None
    assert "has no jpeg_CreateDecompress" in reason(Path(maths))


def test_the_library_is_found_where_pillow_is_a_wheel() -> None:
    found = library()
    assert isinstance(found, Library), found
    assert found.version in (62, 70, 80)
