"""The ffcv reader: FFCV's pixels, the plan's samples and views, and none of FFCV 1.0.2's known faults."""

import io
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from input.reading import collect, copy_of, damage, opened, plan_of, seen
from prunekd.input import EpochPlan, ViewSettings, eval_plan
from prunekd.store import Store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from support import require, write_arrays

pytestmark = pytest.mark.ffcv

RRC = ViewSettings(kind="random_resized_crop", size=24, scale=(0.2, 1.0))
VIEWS = [
    RRC,
    ViewSettings(kind="pad_crop", size=24, padding=5),
    ViewSettings(kind="center", size=24),
    ViewSettings(kind="full", size=40),
]


@pytest.fixture(scope="module", autouse=True)
def ffcv() -> None:
    require("ffcv")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """40 smooth JPEGs of many sizes, one of them grey, one progressive."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for k in range(40):
        coarse = Image.fromarray(rng.integers(0, 256, size=(5, 6, 3), dtype=np.uint8))
        image = coarse.resize(tuple(rng.integers(30, 120, size=2).tolist()), Image.Resampling.BICUBIC)
        path = folder / "source" / "train" / f"class{k % 3}" / f"{k:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        (image.convert("L") if k == 4 else image).save(path, quality=95, progressive=k == 5)
    return convert(open_source(folder / "source"), folder / "store", ConvertSettings())


@pytest.fixture
def damaged(photos: Store, tmp_path: Path) -> Store:
    """A copy of the store that a test may damage."""
    return copy_of(photos, tmp_path)


def plan(store: Store, view: ViewSettings = RRC, **more: Any) -> EpochPlan:
    return plan_of(store, view, **more)


def by_opencv(pixels: np.ndarray, box: list[int], flip: bool, size: int) -> np.ndarray:
    """What FFCV's decoders do with an image and a box, by OpenCV's Python module."""
    cv2: Any = require("cv2")
    left, top, width, height = box
    room = max(0, -left, -top, left + width - pixels.shape[1], top + height - pixels.shape[0])
    padded = np.pad(pixels, ((room, room), (room, room), (0, 0)))
    view = padded[room + top : room + top + height, room + left : room + left + width]
    view = cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA)
    return view[:, ::-1] if flip else view


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.kind)
def test_samples_are_those_of_native_and_pixels_those_of_opencv(photos: Store, view: ViewSettings) -> None:
    split, epoch = photos.split("train"), plan(photos, view)
    with opened("ffcv", photos) as reader, opened("native", photos) as native, split.payloads() as payloads:
        mine, other = collect(reader, epoch), collect(native, epoch)
        assert len(mine) == len(other) == 5
        for number, ((images, labels, ids), (native_images, native_labels, native_ids)) in enumerate(
            zip(mine, other, strict=True)
        ):
            assert torch.equal(labels, native_labels)
            assert torch.equal(ids, native_ids)
            assert (images.int() - native_images.int()).abs().float().mean() < 3  # another filter, another DCT
            planned = epoch.batch(number)
            for i, row in enumerate(planned.rows.tolist()):
                decoded = simplejpeg.decode_jpeg(payloads.read(row), "RGB", fastdct=True)
                expected = by_opencv(decoded, planned.boxes[i].tolist(), bool(planned.flips[i]), view.size)
                difference = np.abs(images[i].permute(1, 2, 0).numpy().astype(int) - expected)
                assert difference.max() <= 2, (number, i)  # two builds of libjpeg-turbo and of OpenCV


@pytest.mark.parametrize("view", [RRC, VIEWS[1]], ids=lambda v: v.kind)
def test_boxes_and_flips_are_exact(tmp_path: Path, view: ViewSettings) -> None:
    """On raw noise every box but the right one gives other pixels."""
    store = convert(open_source(write_arrays(tmp_path / "a.npz", side=24)), tmp_path / "store", ConvertSettings())
    arrays, epoch = np.load(tmp_path / "a.npz")["train_images"], plan(store, view)
    with opened("ffcv", store) as reader:
        for number, (images, _, ids) in enumerate(collect(reader, epoch)):
            planned = epoch.batch(number)
            for i, sample in enumerate(ids.tolist()):
                box, flip = planned.boxes[i].tolist(), bool(planned.flips[i])
                expected = by_opencv(arrays[sample], box, flip, view.size).astype(int)
                got = images[i].permute(1, 2, 0).numpy()
                assert np.abs(got - expected).max() <= (1 if box[2:] != [24, 24] else 0)


def test_numbers_of_workers_that_numba_cannot_give_are_refused(photos: Store) -> None:
    with pytest.raises(ValueError, match=r"workers is 4096.*NUMBA_NUM_THREADS"):
        opened("ffcv", photos, workers=4096)


# Faults of FFCV 1.0.2


def test_the_length_follows_the_subset_and_nothing_is_compiled_again(photos: Store) -> None:
    """FFCV keeps the length of its first epoch; a new Loader would compile for seconds."""
    from prunekd.input.readers.ffcv_kernel import decode_batch

    split = photos.split("train")
    with opened("ffcv", photos) as reader:
        seen(reader, plan(photos))
        compiled = len(decode_batch.signatures), dict(decode_batch.stats.cache_misses)
        for kept, batch_size, side in ((split.ids[:8], 4, 24), (split.ids, 8, 30), (split.ids[5:9], 2, 8)):
            epoch = plan(photos, ViewSettings(kind="center", size=side), batch_size=batch_size, ids=kept)
            assert sorted(seen(reader, epoch)) == kept.tolist()
    with opened("ffcv", photos) as another:
        seen(another, plan(photos))
    assert compiled == (len(decode_batch.signatures), dict(decode_batch.stats.cache_misses))


def test_ffcv_itself_keeps_its_first_length_and_takes_the_decoder_out_of_the_callers_list(photos: Store) -> None:
    """The faults that the reader works around; should this fail one day, FFCV has mended them."""
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
    from ffcv.loader import Loader

    pipeline = [CenterCropRGBImageDecoder((24, 24), 0.9)]
    path, few = str(photos.split("train").path), np.arange(8)
    loader = Loader(
        path,
        batch_size=4,
        num_workers=1,
        os_cache=False,
        indices=few,
        pipelines={"image": pipeline, "label": None, "id": None},
    )
    assert pipeline == []
    loader.indices = loader.traversal_order.indices = np.arange(40)
    assert len(loader) == 2


def test_the_pipeline_is_one_compiled_stage(photos: Store) -> None:
    """A pipeline that goes from compiled code to PyTorch and back hangs FFCV's constructor."""
    from prunekd.input.readers.ffcv_loader import PlannedLoader

    loader = PlannedLoader(photos.split("train"), threads=1)
    stages, outputs = loader.ffcv_loader.code
    loader.close()
    assert len(stages) == len(outputs) == 1


def test_the_callers_numbers_of_threads_stay(photos: Store) -> None:
    numba: Any = require("numba")
    before = torch.get_num_threads(), numba.get_num_threads()
    with opened("ffcv", photos, workers=1) as reader:
        for _ in reader.epoch(plan(photos)):
            assert (torch.get_num_threads(), numba.get_num_threads()) == before


def test_an_error_in_ffcvs_thread_comes_out(photos: Store) -> None:
    """FFCV would wait for ever for a thread that died."""

    class Broken(EpochPlan):
        __slots__ = ()

        def batch(self, number: int) -> Any:
            if number == 2:
                raise ZeroDivisionError("the plan is broken")
            return EpochPlan.batch(self, number)

    good = plan(photos)
    broken = Broken(split=good.split, ids=good.ids, batch_size=7, view=RRC, seed=3, view_index=2)
    numbers: list[int] = []
    with opened("ffcv", photos) as reader:
        with pytest.raises(ZeroDivisionError, match="the plan is broken"):
            numbers.extend(len(batch.ids) for batch in reader.epoch(broken))
        assert numbers == [7, 7]
        assert len(seen(reader, good)) == 35


def damages(size: int) -> Iterator[tuple[int, bytes]]:
    """Ways to damage a payload of `size` bytes: where, and what is written there."""
    yield 0, b"\x00\x00"  # no start
    yield 2, bytes(size - 2)  # no header
    yield 2, b"\xff" * (size - 2)  # nothing but fill bytes
    yield size // 2, b"\xff\xd9" * ((size - size // 2) // 2)  # ends in the middle
    yield size // 2, bytes(size // 4)  # zeros in the middle
    yield size - 2, b"\x00\x00"  # no end


def failing(store: Store) -> dict[int, str]:
    """Why the decoder refuses samples, by row, where the index has the checksums of the damaged bytes."""
    from prunekd.input.readers.ffcv_kernel import REASONS
    from prunekd.input.readers.ffcv_loader import PlannedLoader

    split = store.split("train")
    with split.payloads() as payloads:
        checksums = np.array([zlib.crc32(payloads.read(row)) for row in range(len(split))], np.uint32)
    epoch = eval_plan(replace(split, crc32=checksums), batch_size=16, view=RRC)
    loader = PlannedLoader(epoch.split, threads=2)
    found = {}
    for batch, _, codes in loader.run(epoch, lambda: torch.empty(16, 24, 24, 3, dtype=torch.uint8)):
        found |= {int(row): REASONS[int(code)] for row, code in zip(batch.rows, codes, strict=True) if code}
    loader.close()
    return found


def test_damage_is_noticed_whatever_it_is(damaged: Store) -> None:
    """FFCV drops what libjpeg-turbo returns and delivers what happens to lie in the buffer."""
    sizes = damaged.split("train").sizes.tolist()
    cases = len(list(damages(100)))
    for row in range(10, 10 + cases):
        damage(damaged, row, *list(damages(sizes[row]))[row - 10])
    found = failing(damaged)
    assert set(found) == set(range(10, 10 + cases))
    assert "its bytes are not those that were stored" not in " ".join(found.values())


def test_a_jpeg_of_another_size_is_noticed(damaged: Store) -> None:
    """Its rows would be written with another stride, or over the end of the buffer."""
    split = damaged.split("train")
    rows = split.path.read_bytes()
    for row, column in ((6, 5), (7, 7)):  # height, width in the frame header
        payload = rows[split.pointers[row] : split.pointers[row] + split.sizes[row]]
        frame = payload.index(b"\xff\xc0")
        damage(damaged, row, frame + column, b"\x00\x10")
    assert failing(damaged) == dict.fromkeys((6, 7), "the JPEG is not of the size the index says")


def test_random_damage_is_noticed_as_libjpeg_turbo_notices_it(damaged: Store) -> None:
    """simplejpeg has another build of libjpeg-turbo and refuses what that warns of."""
    rng, split = np.random.default_rng(0), damaged.split("train")
    for row in range(len(split)):
        where = int(rng.integers(0, split.sizes[row]))
        damage(damaged, row, where, rng.bytes(min(int(rng.integers(1, 9)), int(split.sizes[row]) - where)))
    expected = set()
    with split.payloads() as payloads:
        for row in range(len(split)):
            try:
                pixels = simplejpeg.decode_jpeg(payloads.read(row), "RGB")
            except ValueError:
                expected.add(row)
            else:
                expected |= {row} if pixels.shape[:2] != (split.heights[row], split.widths[row]) else set()
    assert 5 < len(expected) < 40
    assert set(failing(damaged)) == expected


def test_pillow_agrees_that_the_undamaged_are_right(photos: Store) -> None:
    """Full frames at their own size against Pillow, so that no two wrong decoders agree with each other."""
    split = photos.split("train")
    with opened("ffcv", photos) as reader, split.payloads() as payloads:
        for batch in reader.epoch(eval_plan(split, batch_size=8, view=VIEWS[3])):
            for image, row in zip(batch.images, split.rows(batch.ids.numpy()).tolist(), strict=True):
                expected = Image.open(io.BytesIO(payloads.read(row))).convert("RGB")
                resized = expected.resize((40, 40), Image.Resampling.BOX)
                difference = np.abs(image.permute(1, 2, 0).numpy().astype(int) - np.array(resized))
                assert difference.mean() < 6
