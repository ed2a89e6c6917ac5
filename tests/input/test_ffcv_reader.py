"""The ffcv reader: FFCV's pixels, the plan's samples and views, and none of FFCV 1.0.2's known faults."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from input.reading import bytes_read_by_this_process, collect, copy_of, opened, plan_of, seen
from prunekd.input import EpochPlan, ViewSettings, eval_plan
from prunekd.store.convert import ConvertSettings, convert
from prunekd.store.index import Store
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


def test_batches_have_the_promised_types_and_weights(photos: Store) -> None:
    split = photos.split("train")
    weights = np.linspace(1, 2, len(split), dtype=np.float32)
    epoch = plan(photos, weights=weights, ids=split.ids)
    with opened("ffcv", photos) as reader:
        batch = next(iter(reader.epoch(epoch)))
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (7, 3, 24, 24)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.dtype == batch.ids.dtype == torch.int64
    assert batch.weights is not None
    assert np.array_equal(batch.weights.numpy(), weights[split.rows(batch.ids.numpy())])


def test_the_number_of_workers_changes_nothing(photos: Store) -> None:
    with opened("ffcv", photos, workers=1) as one, opened("ffcv", photos, workers=2) as two:
        for a, b in zip(collect(one, plan(photos)), collect(two, plan(photos)), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_numbers_of_workers_that_numba_cannot_give_are_refused(photos: Store) -> None:
    with pytest.raises(ValueError, match=r"workers is 4096.*NUMBA_NUM_THREADS"):
        opened("ffcv", photos, workers=4096)


def test_a_resumed_epoch_goes_on_where_it_stopped(photos: Store) -> None:
    with opened("ffcv", photos) as reader:
        whole, rest = collect(reader, plan(photos)), collect(reader, plan(photos, start_step=2))
        assert len(rest) == 3
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[2], b[2]) for a, b in zip(whole[2:], rest, strict=True))
        assert collect(reader, plan(photos, start_step=5)) == []


def test_every_sample_is_seen_once_in_an_evaluation(photos: Store) -> None:
    split = photos.split("train")
    with opened("ffcv", photos) as reader, opened("native", photos) as native:
        for world_size in (1, 3):
            ids = []
            for rank in range(world_size):
                epoch = eval_plan(split, batch_size=9, view=VIEWS[2], world_size=world_size, rank=rank)
                mine = collect(reader, epoch)
                assert [b[2].tolist() for b in mine] == [b[2].tolist() for b in collect(native, epoch)]
                assert [len(b[0]) for b in mine] == [len(b[2]) for b in mine]
                ids += [i for b in mine for i in b[2].tolist()]
            assert sorted(ids) == split.ids.tolist()


def test_a_batch_stays_as_it_is_until_the_next_but_one(photos: Store) -> None:
    with opened("ffcv", photos) as reader:
        iterator = reader.epoch(plan(photos, batch_size=3))
        previous = next(iterator)
        copy = previous.images.clone()
        for batch in iterator:
            assert torch.equal(previous.images, copy)
            previous, copy = batch, batch.images.clone()


def test_two_epochs_may_run_at_once(photos: Store) -> None:
    first, second = plan(photos), plan(photos, VIEWS[3], batch_size=5, epoch=8)
    with opened("ffcv", photos) as reader:
        alone = collect(reader, first), collect(reader, second)
        pairs = [(a.images.clone(), b.images.clone()) for a, b in zip(reader.epoch(first), reader.epoch(second))]  # noqa: B905
    assert len(pairs) == 5
    for k, (a, b) in enumerate(pairs):
        assert torch.equal(a, alone[0][k][0])
        assert torch.equal(b, alone[1][k][0])


def test_only_the_payload_is_read(photos: Store) -> None:
    split = photos.split("train")
    with opened("ffcv", photos) as reader:
        seen(reader, plan(photos))
        before = reader.bytes_read
        epoch = plan(photos, ids=split.ids[::3], batch_size=2)
        rows = split.rows(epoch.ids)
        started = bytes_read_by_this_process()
        seen(reader, epoch)
        asked = bytes_read_by_this_process() - started
        assert reader.bytes_read - before == split.sizes[rows].sum()
        assert reader.bytes_read == reader.payload_bytes
    assert split.sizes[rows].sum() <= asked <= 1.05 * split.sizes[rows].sum()


# Faults of FFCV 1.0.2


def test_the_length_follows_the_subset_and_nothing_is_compiled_again(photos: Store) -> None:
    """FFCV keeps the length of its first epoch; a new Loader would compile for seconds."""
    from prunekd.input.ffcv_kernel import decode_batch

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


def test_readers_may_be_opened_again_and_again(photos: Store) -> None:
    """FFCV takes decoders out of its caller's lists, so that a second Loader has none."""
    with opened("ffcv", photos) as first, opened("ffcv", photos) as second:
        for a, b in zip(collect(first, plan(photos)), collect(second, plan(photos)), strict=True):
            assert torch.equal(a[0], b[0])


def test_the_pipeline_is_one_compiled_stage(photos: Store) -> None:
    """A pipeline that goes from compiled code to PyTorch and back hangs FFCV's constructor."""
    from prunekd.input.ffcv_loader import PlannedLoader

    loader = PlannedLoader(photos.split("train"), threads=1)
    stages, outputs = loader.ffcv_loader.code
    loader.close()
    assert len(stages) == len(outputs) == 1


def test_ranks_share_a_subset_in_any_order(photos: Store) -> None:
    """FFCV has no QUASI_RANDOM across processes, and its RANDOM pads ranks with samples seen twice."""
    kept = photos.split("train").ids[3:39]
    whole = plan(photos, ids=kept, batch_size=12)
    with opened("ffcv", photos) as reader:
        alone = seen(reader, whole)
        shares = [seen(reader, plan(photos, ids=kept, batch_size=12, world_size=3, rank=r)) for r in range(3)]
    assert sorted(alone) == kept.tolist()
    assert [len(share) for share in shares] == [12, 12, 12]
    assert np.stack(shares, axis=1).ravel().tolist() == alone


def test_the_callers_numbers_of_threads_stay(photos: Store) -> None:
    numba: Any = require("numba")
    before = torch.get_num_threads(), numba.get_num_threads()
    with opened("ffcv", photos, workers=1) as reader:
        for _ in reader.epoch(plan(photos)):
            assert (torch.get_num_threads(), numba.get_num_threads()) == before


def test_leaving_early_leaves_no_thread_and_the_next_epoch_works(photos: Store) -> None:
    with opened("ffcv", photos) as reader:
        seen(reader, plan(photos))
        before = threading.active_count()
        for stop in range(5):
            for number, _ in enumerate(reader.epoch(plan(photos, batch_size=1))):
                if number == stop:
                    break
            assert threading.active_count() == before
        assert len(seen(reader, plan(photos))) == 35
        started = reader.epoch(plan(photos, batch_size=1))
        next(started)
    started.close()  # after the reader
    assert threading.active_count() == before


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


def damage(store: Store, row: int, where: int, what: bytes) -> None:
    split = store.split("train")
    with split.path.open("r+b") as file:
        file.seek(int(split.pointers[row]) + where)
        file.write(what)


def failing(store: Store) -> dict[int, int]:
    """Codes of the samples that the decoder refuses, by row."""
    from prunekd.input.ffcv_loader import PlannedLoader

    epoch = eval_plan(store.split("train"), batch_size=16, view=RRC)
    loader = PlannedLoader(epoch.split, threads=2)
    found = {}
    for batch, _, codes in loader.run(epoch, lambda: torch.empty(16, 24, 24, 3, dtype=torch.uint8)):
        found |= {int(row): int(code) for row, code in zip(batch.rows, codes, strict=True) if code}
    loader.close()
    return found


def test_damage_is_noticed_whatever_it_is(damaged: Store) -> None:
    """FFCV drops what libjpeg-turbo returns and delivers what happens to lie in the buffer."""
    sizes = damaged.split("train").sizes.tolist()
    cases = len(list(damages(100)))
    for row in range(10, 10 + cases):
        damage(damaged, row, *list(damages(sizes[row]))[row - 10])
    assert set(failing(damaged)) == set(range(10, 10 + cases))


def test_a_jpeg_of_another_size_is_noticed(damaged: Store) -> None:
    """Its rows would be written with another stride, or over the end of the buffer."""
    from prunekd.input.ffcv_kernel import REASONS

    split = damaged.split("train")
    rows = split.path.read_bytes()
    for row, column in ((6, 5), (7, 7)):  # height, width in the frame header
        payload = rows[split.pointers[row] : split.pointers[row] + split.sizes[row]]
        frame = payload.index(b"\xff\xc0")
        damage(damaged, row, frame + column, b"\x00\x10")
    found = failing(damaged)
    assert set(found) == {6, 7}
    assert {REASONS[code] for code in found.values()} == {"the JPEG is not of the size the index says"}


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


@pytest.mark.parametrize("on_error", ["replace", "skip"])
def test_corrupt_samples_are_settled_as_in_the_native_reader(damaged: Store, on_error: str) -> None:
    split = damaged.split("train")
    for row in (3, 20, 21):
        damage(damaged, row, int(split.sizes[row]) // 2, bytes(int(split.sizes[row]) // 4))
    epoch = eval_plan(split, batch_size=8, view=VIEWS[2])
    with opened("ffcv", damaged, on_error=on_error) as reader, opened("native", damaged, on_error=on_error) as native:
        mine, other = collect(reader, epoch), collect(native, epoch)
        expected = {"replaced": 0, "skipped": 0} | {"replaced" if on_error == "replace" else "skipped": 3}
        assert reader.faults.counts == native.faults.counts == expected
        assert set(reader.faults.seen) == set(split.ids[[3, 20, 21]].tolist())
    for (images, labels, ids), (native_images, native_labels, native_ids) in zip(mine, other, strict=True):
        assert torch.equal(ids, native_ids)
        assert torch.equal(labels, native_labels)
        assert (images.int() - native_images.int()).abs().float().mean() < 3


def test_a_file_that_ends_early_is_noticed(damaged: Store) -> None:
    split = damaged.split("train")
    last = int(np.argmax(split.pointers))
    with opened("ffcv", damaged) as reader:
        with split.path.open("r+b") as file:
            file.truncate(int(split.pointers[last]) + 5)
        with pytest.raises(ValueError, match=rf"sample {split.ids[last]} "):
            seen(reader, eval_plan(split, batch_size=4, view=RRC))


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
