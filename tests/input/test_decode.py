"""Views of stored samples against torchvision, with machine code and without."""

import io
import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as T

from _native.pictures import jpeg
from prunekd._native.libjpeg import SWITCH
from prunekd.input.readers import native_reader
from prunekd.input.readers.decode import ViewDecoder
from prunekd.input.readers.native_reader import NativeReader
from prunekd.store import Store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source

BOXES = [
    (0, 0, 150, 160),
    (11, 7, 120, 33),
    (-20, 5, 100, 100),
    (150, -30, 100, 90),
    (900, 0, 10, 10),
    (3, 1, 190, 191),
]


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


def all_views(store: Store, scaled: bool) -> tuple[str, np.ndarray]:
    """How JPEG files are decoded, and BOXES of every sample at sides of 24 and 64 pixels."""
    split, views = store.split("train"), []
    with split.payloads() as payloads:
        decoder = ViewDecoder(split, payloads, scaled)
        for row in range(len(split)):
            for k, box in enumerate(BOXES):
                for side in (24, 64):
                    views.append(np.empty((side, side, 3), np.uint8))
                    decoder.read(row, box, k % 2 == 0, views[-1])
    return decoder.description, np.concatenate([view.ravel() for view in views])


@pytest.mark.parametrize("scaled", [False, True])
def test_the_switch_changes_no_pixel(photographs: Store, monkeypatch: pytest.MonkeyPatch, scaled: bool) -> None:
    monkeypatch.setenv(SWITCH, "1")
    how, crops = all_views(photographs, scaled)
    assert how.startswith("crops of JPEGs")
    monkeypatch.setenv(SWITCH, "0")
    how, whole = all_views(photographs, scaled)
    assert how.startswith("whole JPEGs")
    assert how.endswith("through simplejpeg, because PRUNEKD_NATIVE=0")
    assert np.array_equal(crops, whole)
    assert crops.any()


def test_the_switch_changes_no_pixel_of_tiny_images(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several scales of an image of up to 8 pixels have the same size."""
    folder = tmp_path_factory.mktemp("small")
    for k, (width, height) in enumerate([(8, 8), (9, 5), (3, 9), (16, 2), (4, 4)]):
        path = folder / "source" / "train" / "class" / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(width, height, seed=k, subsampling="4:2:0"))
    split = convert(open_source(folder / "source"), folder / "store", ConvertSettings()).split("train")
    views: dict[str, list[np.ndarray]] = {"0": [], "1": []}
    with split.payloads() as payloads:
        for switch, found in views.items():
            monkeypatch.setenv(SWITCH, switch)
            decoder = ViewDecoder(split, payloads, scaled=True)
            for row in range(len(split)):
                for side in (1, 2):
                    found.append(np.empty((side, side, 3), np.uint8))
                    decoder.read(row, (0, 0, int(split.widths[row]), int(split.heights[row])), False, found[-1])
    assert all(np.array_equal(a, b) for a, b in zip(views["0"], views["1"], strict=True))


def test_the_decoder_of_this_run_is_the_one_asked_for(photographs: Store) -> None:
    split = photographs.split("train")
    with split.payloads() as payloads:
        decoder = ViewDecoder(split, payloads)
    assert decoder.whole == (os.environ.get(SWITCH) == "0")
    assert ("simplejpeg" in decoder.description) == decoder.whole
    assert ("libjpeg" in decoder.description) != decoder.whole


def test_the_reader_says_once_how_it_decodes(
    photographs: Store, tiny_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    native_reader._say.cache_clear()
    with caplog.at_level(logging.INFO, logger="prunekd"):
        for switch in ("1", "0", "0"):
            monkeypatch.setenv(SWITCH, switch)
            NativeReader(photographs, "train", workers=1).close()
        NativeReader(tiny_store, "train", workers=1).close()  # all raw: there is nothing to say
    crops, whole = caplog.records
    assert crops.getMessage().startswith("native reader: crops of JPEGs through libjpeg")
    assert crops.levelno == logging.INFO
    assert whole.getMessage() == "native reader: whole JPEGs through simplejpeg, because PRUNEKD_NATIVE=0"
    assert whole.levelno == logging.WARNING
