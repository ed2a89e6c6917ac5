"""The dali reader: the plan's samples and views, torchvision's pixels within a tolerance; no fault kills it."""

import gc
import io
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from input.reading import bytes_read_by_this_process, collect, copy_of, opened, plan_of, seen
from prunekd.input import EpochPlan, ViewSettings, eval_plan
from prunekd.store.convert import ConvertSettings, convert
from prunekd.store.index import Store
from prunekd.store.sources import open_source
from support import require, write_arrays

pytestmark = pytest.mark.dali

RRC = ViewSettings(kind="random_resized_crop", size=24, scale=(0.1, 1.0))
VIEWS = [
    RRC,
    ViewSettings(kind="random_resized_crop", size=90),
    ViewSettings(kind="pad_crop", size=24, padding=5),
    ViewSettings(kind="center", size=24),
    ViewSettings(kind="full", size=40),
]
INSIDE, EDGE = 1, 60  # levels of 255 that a pixel may be off


def assert_close(mine: torch.Tensor, other: torch.Tensor) -> None:
    """Hold images (B, 3, h, w) to the tolerance.

    At an edge 1/8 of a filter's weight hangs over, at a corner 1 - (7/8)^2 = 0.23: DALI has the edge pixel there,
    torchvision nothing.
    """
    difference = (mine.int() - other.int()).abs()
    assert difference[..., 1:-1, 1:-1].max() <= INSIDE
    assert difference.max() <= EDGE


@pytest.fixture(scope="module", autouse=True)
def dali() -> None:
    require("nvidia.dali")


def photograph(rng: np.random.Generator) -> Image.Image:
    """Edges, gradients and noise, of any size from 30 to 119 pixels."""
    coarse = Image.fromarray(rng.integers(0, 256, size=(5, 6, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize(tuple(rng.integers(30, 120, size=2).tolist()), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(image + rng.normal(0, 12, size=image.shape), 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """40 photographs of many sizes: grey and progressive ones among them, and small ones that are stored raw."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for k in range(40):
        image = photograph(rng)
        path = folder / "source" / "train" / f"class{k % 3}" / f"{k:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if k in (6, 17, 18):
            image.resize((40, 33)).save(path.with_suffix(".png"))
        else:
            (image.convert("L") if k == 4 else image).save(path, quality=95, progressive=k == 5, subsampling=k % 3)
    store = convert(open_source(folder / "source"), folder / "store", ConvertSettings(mode="auto"))
    assert np.unique(store.split("train").modes).tolist() == [0, 1]
    return store


@pytest.fixture
def damaged(photos: Store, tmp_path: Path) -> Store:
    """A copy of the store that a test may damage."""
    return copy_of(photos, tmp_path)


def plan(store: Store, view: ViewSettings = RRC, **more: Any) -> EpochPlan:
    return plan_of(store, view, **more)


def by_torchvision(pixels: np.ndarray, box: list[int], flip: bool, size: int) -> torch.Tensor:
    """The view of an image (h, w, 3) by torchvision, from the definitions of box and flip; (3, size, size)."""
    left, top, width, height = box
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    image = tv.resized_crop(image, top, left, height, width, [size, size], antialias=True)
    return tv.horizontal_flip(image) if flip else image


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: f"{v.kind}-{v.size}")
def test_samples_are_those_of_native_and_pixels_those_of_torchvision(photos: Store, view: ViewSettings) -> None:
    split, epoch = photos.split("train"), plan(photos, view)
    with opened("dali", photos) as reader, opened("native", photos) as native, split.payloads() as payloads:
        mine, other = collect(reader, epoch), collect(native, epoch)
        assert len(mine) == len(other) == 5
        for number, ((images, labels, ids), (_, native_labels, native_ids)) in enumerate(zip(mine, other, strict=True)):
            assert torch.equal(labels, native_labels)
            assert torch.equal(ids, native_ids)
            planned = epoch.batch(number)
            for i, row in enumerate(planned.rows.tolist()):
                if split.modes[row]:
                    pixels = np.frombuffer(payloads.read(row), np.uint8).reshape(33, 40, 3)
                else:
                    pixels = np.asarray(Image.open(io.BytesIO(payloads.read(row))).convert("RGB"))
                expected = by_torchvision(pixels, planned.boxes[i].tolist(), bool(planned.flips[i]), view.size)
                assert_close(images[i : i + 1], expected[None])


@pytest.mark.parametrize("view", [RRC, VIEWS[2]], ids=lambda v: v.kind)
def test_boxes_and_flips_are_exact(tmp_path: Path, view: ViewSettings) -> None:
    """On raw noise every box but the right one gives other pixels."""
    store = convert(open_source(write_arrays(tmp_path / "a.npz", side=24)), tmp_path / "store", ConvertSettings())
    arrays, epoch = np.load(tmp_path / "a.npz")["train_images"], plan(store, view)
    with opened("dali", store) as reader:
        for number, (images, _, ids) in enumerate(collect(reader, epoch)):
            planned = epoch.batch(number)
            for i, sample in enumerate(ids.tolist()):
                box = planned.boxes[i].tolist()
                expected = by_torchvision(arrays[sample], box, bool(planned.flips[i]), view.size)
                assert (images[i].int() - expected.int()).abs().max() <= (1 if box[2:] != [24, 24] else 0)


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.2, 0.05])
def test_every_keep_ratio_delivers_its_samples_and_reads_no_others(photos: Store, keep: float) -> None:
    split = photos.split("train")
    kept = np.random.default_rng(7).permutation(split.ids)[: round(40 * keep)]
    epoch = plan(photos, ids=kept, batch_size=2)
    with opened("dali", photos) as reader:
        seen(reader, plan(photos))  # DALI itself is read from files
        warm, before = reader.bytes_read, bytes_read_by_this_process()
        assert seen(reader, epoch) == epoch.ids.tolist()
        asked = bytes_read_by_this_process() - before
        payload = int(split.sizes[split.rows(kept)].sum())
        assert reader.bytes_read - warm == payload
        assert reader.bytes_read == reader.payload_bytes
    assert payload <= asked <= 1.05 * payload


def test_ranks_share_the_batches_of_one(photos: Store) -> None:
    with opened("dali", photos) as reader:
        whole = collect(reader, plan(photos, batch_size=8))
        shares = [collect(reader, plan(photos, batch_size=8, world_size=2, rank=r)) for r in range(2)]
    for (images, labels, ids), first, second in zip(whole, *shares, strict=True):
        for part, share in ((slice(0, None, 2), first), (slice(1, None, 2), second)):
            assert torch.equal(share[0], images[part])
            assert torch.equal(share[1], labels[part])
            assert torch.equal(share[2], ids[part])


def test_every_sample_is_seen_once_in_an_evaluation(photos: Store) -> None:
    """The last batch is short, and empty ranks see nothing."""
    split = photos.split("train")
    with opened("dali", photos) as reader, opened("native", photos) as native:
        for world_size in (1, 3):
            ids = []
            for rank in range(world_size):
                epoch = eval_plan(split, batch_size=9, view=VIEWS[3], world_size=world_size, rank=rank)
                mine = collect(reader, epoch)
                assert [b[2].tolist() for b in mine] == [b[2].tolist() for b in collect(native, epoch)]
                assert [len(b[0]) for b in mine] == [len(b[2]) for b in mine]
                ids += [i for b in mine for i in b[2].tolist()]
            assert sorted(ids) == split.ids.tolist()
        assert collect(reader, plan(photos, start_step=5)) == []


def test_batches_have_the_promised_types_and_weights(photos: Store) -> None:
    split = photos.split("train")
    weights = np.linspace(1, 2, len(split), dtype=np.float32)
    with opened("dali", photos) as reader:
        batch = next(iter(reader.epoch(plan(photos, weights=weights, ids=split.ids))))
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (7, 3, 24, 24)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.dtype == batch.ids.dtype == torch.int64
    assert batch.weights is not None
    assert np.array_equal(batch.weights.numpy(), weights[split.rows(batch.ids.numpy())])


def test_the_number_of_workers_and_a_resumption_change_nothing(photos: Store) -> None:
    with opened("dali", photos, workers=1) as one, opened("dali", photos, workers=2) as two:
        whole = collect(one, plan(photos))
        for a, b in zip(whole, collect(two, plan(photos)), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        rest = collect(two, plan(photos, start_step=2))
    assert len(rest) == 3
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[2], b[2]) for a, b in zip(whole[2:], rest, strict=True))


def test_subset_resolution_and_batch_size_may_change_from_epoch_to_epoch(photos: Store) -> None:
    ids = photos.split("train").ids
    with opened("dali", photos) as reader:
        for kept, batch_size, size in ((ids[:8], 4, 24), (ids, 8, 40), (ids[5:9], 2, 16), (ids[::-1], 13, 24)):
            view = ViewSettings(kind="random_resized_crop", size=size)
            epoch = plan(photos, view, batch_size=batch_size, ids=kept)
            batches = collect(reader, epoch)
            assert [i for b in batches for i in b[2].tolist()] == epoch.ids.tolist()
            assert {tuple(b[0].shape) for b in batches} == {(batch_size, 3, size, size)}


def test_all_batches_of_an_epoch_may_be_kept(photos: Store) -> None:
    with opened("dali", photos) as reader:
        kept, copies = [], []
        for batch in reader.epoch(plan(photos, batch_size=3)):
            kept.append(batch.images)
            copies.append(batch.images.clone())
        seen(reader, plan(photos, batch_size=3))
    del reader
    gc.collect()
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_two_epochs_may_run_at_once(photos: Store) -> None:
    first, second = plan(photos), plan(photos, VIEWS[4], batch_size=5, epoch=8)
    with opened("dali", photos) as reader:
        alone = collect(reader, first), collect(reader, second)
        pairs = [(a.images.clone(), b.images.clone()) for a, b in zip(reader.epoch(first), reader.epoch(second))]  # noqa: B905
    assert len(pairs) == 5
    for k, (a, b) in enumerate(pairs):
        assert torch.equal(a, alone[0][k][0])
        assert torch.equal(b, alone[1][k][0])


def held_by_this_process() -> tuple[int, int, int]:
    """Threads of the operating system, Python's threads, open files."""
    gc.collect()
    return len(os.listdir("/proc/self/task")), threading.active_count(), len(os.listdir("/proc/self/fd"))


def test_loops_left_early_leave_nothing_behind(photos: Store) -> None:
    with opened("dali", photos) as reader:
        seen(reader, plan(photos))
    before = held_by_this_process()
    with opened("dali", photos) as reader:
        for k in range(12):
            for _ in reader.epoch(plan(photos, batch_size=3, epoch=k)):
                if k % 3:
                    break
        counts = held_by_this_process()
        assert seen(reader, plan(photos)) == plan(photos).ids.tolist()
    assert held_by_this_process() == before
    assert counts[0] <= before[0] + 12  # of one reader, not of twelve epochs


def test_an_error_in_the_loop_is_the_callers(photos: Store) -> None:
    with opened("dali", photos) as reader:
        loop = reader.epoch(plan(photos))
        next(loop)
        with pytest.raises(ValueError, match="mine"):
            loop.throw(ValueError("mine"))  # type: ignore[attr-defined]
        assert len(seen(reader, plan(photos))) == 35


def damage(store: Store, row: int, offset: int, data: bytes) -> None:
    split = store.split("train")
    with split.path.open("r+b") as file:
        file.seek(int(split.pointers[row]) + offset)
        file.write(data)


@pytest.mark.parametrize("view", [RRC, VIEWS[2]], ids=lambda v: v.kind)
@pytest.mark.parametrize("on_error", ["replace", "skip"])
def test_corrupt_samples_are_settled_as_in_the_native_reader(damaged: Store, on_error: str, view: ViewSettings) -> None:
    split = damaged.split("train")
    raw = int(np.flatnonzero(split.modes)[0])
    for row in {3, 20, 21, raw}:
        damage(damaged, row, int(split.sizes[row]) // 2, bytes(int(split.sizes[row]) // 4))
    epoch = eval_plan(split, batch_size=8, view=view)
    with opened("dali", damaged, on_error=on_error) as reader, opened("native", damaged, on_error=on_error) as native:
        mine, other = collect(reader, epoch), collect(native, epoch)
        assert reader.faults.counts == native.faults.counts
        assert sum(reader.faults.counts.values()) == 4
        assert reader.faults.seen == native.faults.seen
        assert set(reader.faults.seen) == set(split.ids[[3, 20, 21, raw]].tolist())
    for (images, labels, ids), (native_images, native_labels, native_ids) in zip(mine, other, strict=True):
        assert torch.equal(ids, native_ids)
        assert torch.equal(labels, native_labels)
        assert_close(images, native_images)


def test_a_batch_of_corrupt_samples_alone_is_settled(damaged: Store) -> None:
    split = damaged.split("train")
    epoch = plan(damaged, batch_size=4)
    for row in split.rows(epoch.ids[4:8]).tolist():
        damage(damaged, row, 0, bytes(40))
    with opened("dali", damaged, on_error="replace") as reader, opened("native", damaged, on_error="replace") as native:
        assert seen(reader, epoch) == seen(native, epoch)
        assert reader.faults.counts == {"replaced": 4, "skipped": 0}


def test_raising_names_the_sample_and_the_reader_survives(damaged: Store) -> None:
    split, epoch = damaged.split("train"), plan(damaged)
    first = int(epoch.ids[10])
    damage(damaged, int(split.rows(np.array([first]))[0]), 30, b"\xff\xd9" * 40)
    with opened("dali", damaged) as reader:
        with pytest.raises(ValueError, match=rf"sample {first} .*train.beton cannot be decoded.*convert"):
            seen(reader, epoch)
        good = np.setdiff1d(split.ids, [first])
        assert seen(reader, plan(damaged, ids=good)) == plan(damaged, ids=good).ids.tolist()


def test_an_index_that_states_another_size_is_noticed_before_dali_sees_the_image(damaged: Store) -> None:
    split = damaged.split("train")
    row = int(np.flatnonzero(split.modes == 0)[5])
    damaged.splits["train"] = split = replace(split, heights=split.heights + 9 * (np.arange(len(split)) == row))
    with (
        opened("dali", damaged) as reader,
        pytest.raises(ValueError, match=rf"sample {split.ids[row]} .*the index says"),
    ):
        seen(reader, eval_plan(split, batch_size=8, view=RRC))


def test_a_file_that_ends_early_is_noticed(damaged: Store) -> None:
    split = damaged.split("train")
    last = int(np.argmax(split.pointers))
    with opened("dali", damaged) as reader:
        with split.path.open("r+b") as file:
            file.truncate(int(split.pointers[last]) + 5)
        with pytest.raises(ValueError, match=rf"sample {split.ids[last]} "):
            seen(reader, eval_plan(split, batch_size=4, view=RRC))


def test_an_error_of_dali_is_a_runtime_error_with_its_message(photos: Store) -> None:
    """A box outside the image, which no plan has, stands for whatever DALI may refuse."""
    epoch = plan(photos)

    class Wrong(EpochPlan):
        def batch(self, number: int) -> Any:
            return epoch.batch(number)._replace(boxes=np.full((7, 4), 500, np.int32))

    wrong = Wrong(split=epoch.split, ids=epoch.ids, batch_size=7, view=epoch.view)
    with opened("dali", photos) as reader:
        with pytest.raises(RuntimeError, match=r"DALI failed: .*image_slice"):
            seen(reader, wrong)
        assert seen(reader, epoch) == epoch.ids.tolist()


@pytest.mark.gpu
def test_decoding_on_a_gpu(photos: Store) -> None:
    """nvJPEG's inverse DCT and chroma upsampling round otherwise; the boxes and flips are the plan's."""
    epoch = plan(photos, VIEWS[1])
    with opened("dali", photos, pin=True) as reader, opened("native", photos) as native:
        for mine, other in zip(reader.epoch(epoch), native.epoch(epoch), strict=True):
            assert mine.images.is_cuda
            assert torch.equal(mine.ids, other.ids)
            assert (mine.images.cpu().int() - other.images.int()).abs().float().mean() < 2
