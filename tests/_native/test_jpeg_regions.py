"""Rectangles of JPEG files against whole decodes, and what becomes of files that are none."""

import contextlib
import os
import threading

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from _native.pictures import jpeg, whole
from prunekd._native.jpeg_regions import RegionDecoder
from prunekd._native.libjpeg import SWITCH

pytestmark = pytest.mark.skipif(os.environ.get(SWITCH) == "0", reason="switched off: there is no such decoder")

SCALES = (8, 4, 2, 1)


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
