"""The readers: same ids, same crops, right pixels, nothing left behind."""

import gc
import io
import mmap
import os
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as T

from prunekd.input import READERS, EpochPlan, ViewSettings, open_reader, train_plan
from prunekd.input.readers.buffers import IDLE
from prunekd.input.readers.native_reader import LOOK_AHEAD, READ_AHEAD, NativeReader
from prunekd.store import Store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source

RRC = ViewSettings(kind="random_resized_crop", size=24, scale=(0.2, 1.0))
VIEWS = [
    RRC,
    ViewSettings(kind="pad_crop", size=24, padding=5),
    ViewSettings(kind="center", size=24),
    ViewSettings(kind="full", size=40),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of smooth JPEGs of many sizes, one of them grey and one larger than the store's limit."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for k in range(30):
        size = (300, 280) if k == 7 else tuple(rng.integers(30, 120, size=2).tolist())
        coarse = Image.fromarray(rng.integers(0, 256, size=(5, 6, 3), dtype=np.uint8))
        image = coarse.resize(size, Image.Resampling.BICUBIC)
        path = folder / "source" / "train" / f"class{k % 3}" / f"{k:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        (image.convert("L") if k == 4 else image).save(path, quality=95)
    return convert(open_source(folder / "source"), folder / "store", ConvertSettings(max_side=200))


def plan(store: Store, view: ViewSettings = RRC, batch_size: int = 7, **more: int) -> EpochPlan:
    settings = {"seed": 3, "epoch": 2, **more}
    return train_plan(store.split("train"), ids=None, batch_size=batch_size, view=view, **settings)  # type: ignore[arg-type]


def collect(store: Store, name: str, plan_: EpochPlan, workers: int | None = 2) -> list[tuple[torch.Tensor, ...]]:
    with open_reader(name, store, "train", workers=workers) as reader:
        return [(b.images.clone(), b.labels.clone(), b.ids.clone()) for b in reader.epoch(plan_)]


def most_buffers(workers: int) -> int:
    """Blocks at a time: those ahead, the user's, and one that each thread lets go of a moment late."""
    return LOOK_AHEAD + 1 + workers


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.kind)
def test_native_and_torch_give_the_same_ids_labels_and_pixels(photos: Store, view: ViewSettings) -> None:
    native, baseline = (
        collect(photos, name, plan(photos, view), workers=w) for name, w in (("native", 2), ("torch", 0))
    )
    assert len(native) == len(baseline) == 4
    shrunk = 7 // 3 + 10  # sample 7 is class1's third file; its stored pixels are a shrunk, re-encoded copy
    for mine, theirs in zip(native, baseline, strict=True):
        assert torch.equal(mine[1], theirs[1])
        assert torch.equal(mine[2], theirs[2])
        exact = mine[2] != shrunk
        difference = (mine[0].int() - theirs[0].int()).abs()
        assert difference[exact].max() <= 2  # two builds of libjpeg-turbo may round differently
        assert difference[exact].float().mean() < 0.05
        assert not exact.all() or difference.float().mean() < 0.05
        if not exact.all():
            assert difference[~exact].float().mean() < 8


def test_pixels_are_torchvisions_resized_crop(photos: Store) -> None:
    """Against PIL's decoder and torchvision's resized_crop, from the stored bytes."""
    split = photos.split("train")
    with split.payloads() as payloads, open_reader("native", photos, "train") as reader:
        epoch = plan(photos)
        for number, batch in enumerate(reader.epoch(epoch)):
            planned = epoch.batch(number)
            for i, row in enumerate(planned.rows):
                decoded = np.array(Image.open(io.BytesIO(payloads.read(int(row)))).convert("RGB"))
                left, top, width, height = planned.boxes[i].tolist()
                image = torch.from_numpy(decoded).permute(2, 0, 1)
                expected = T.resized_crop(image, top, left, height, width, [24, 24], antialias=True)
                if planned.flips[i]:
                    expected = T.horizontal_flip(expected)
                assert (batch.images[i].int() - expected.int()).abs().max() <= 2


def test_raw_images_come_out_exactly(tiny_store: Store, tmp_path: Path) -> None:
    source = np.load(tiny_store.source["path"])
    epoch = train_plan(
        tiny_store.split("train"), ids=None, seed=0, epoch=0, batch_size=32, view=ViewSettings(kind="full", size=12)
    )
    for images, labels, ids in collect(tiny_store, "native", epoch):
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), source["train_images"][ids.numpy()])
        assert np.array_equal(labels.numpy(), source["train_labels"][ids.numpy()])


def test_leaving_early_leaves_no_thread_and_no_buffer(photos: Store) -> None:
    before = threading.active_count()
    reader = NativeReader(photos, "train", workers=3)
    for _ in range(10):
        for _batch in reader.epoch(plan(photos)):
            break
    assert len(reader._buffers._idle) <= most_buffers(3)
    assert threading.active_count() <= before + 3
    reader.close()
    assert threading.active_count() == before


def test_ending_early_or_late_closes_every_file_and_frees_every_buffer(photos: Store) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    for batches in (1, 2, 4):
        reader = NativeReader(photos, "train", workers=2)
        seen = [batch for _, batch in zip(range(batches), reader.epoch(plan(photos)), strict=False)]
        buffers = [weakref.ref(buffer) for buffer in reader._buffers._idle]
        assert len(buffers) <= most_buffers(2)
        del seen
        reader.close()
        assert open_files() == before
        del reader
        gc.collect()
        assert not any(ref() for ref in buffers)


def test_an_epoch_uses_the_same_few_buffers_again(photos: Store) -> None:
    with open_reader("native", photos, "train", workers=2) as reader:
        addresses = {batch.images.data_ptr() for _ in range(3) for batch in reader.epoch(plan(photos, batch_size=2))}
    assert len(addresses) <= most_buffers(2)


def test_a_batch_is_its_own_as_long_as_anything_refers_to_its_memory(photos: Store) -> None:
    """A slice, an array, or a view of a view: what is kept holds the whole; what is let go of is used again."""
    epoch = plan(photos, batch_size=2)
    with open_reader("native", photos, "train", workers=2) as reader:
        known = [batch.images.clone() for batch in reader.epoch(epoch)]
        keepers = (lambda t: t[:1], lambda t: t.numpy(), lambda t: t.permute(0, 2, 3, 1)[1:, 3:].numpy()[..., 0])
        for keep in keepers:
            kept = [keep(batch.images) for batch in reader.epoch(epoch)]
            for _ in range(2):
                list(reader.epoch(epoch))
            for mine, whole in zip(kept, known, strict=True):
                np.testing.assert_array_equal(np.asarray(mine), np.asarray(keep(whole)))
        del kept, mine
        gc.collect()
        assert 0 < len(reader._buffers._idle) <= IDLE
        idle = {block.data_ptr() for block in reader._buffers._idle}
        assert {batch.images.data_ptr() for batch in reader.epoch(epoch)} <= idle


def test_what_is_announced_is_what_is_read_in_the_order_of_the_file(
    photos: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And announcing changes no batch."""
    split = photos.split("train")
    epoch = train_plan(split, ids=split.ids[::2], seed=0, epoch=0, batch_size=2, view=RRC)
    announced: list[tuple[int, int]] = []

    def note(_file: int, start: int, size: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        announced.append((start, start + size))

    with (
        NativeReader(photos, "train", workers=1, read_ahead=0) as plain,
        NativeReader(photos, "train", workers=1) as reader,  # two threads may announce two groups at once
    ):
        expected = [batch.images.clone() for batch in plain.epoch(epoch)]
        assert not announced
        monkeypatch.setattr(os, "posix_fadvise", note)
        for image, batch in zip(expected, reader.epoch(epoch), strict=True):
            assert torch.equal(image, batch.images)
    rows = split.rows(epoch.ids)
    pages = {page for row in rows for page in touched(split.pointers[row], split.pointers[row] + split.sizes[row])}
    assert {page for start, end in announced for page in touched(start, end)} == pages
    for group in range(0, len(epoch), READ_AHEAD):  # each group starts anew at the beginning of the file
        rows = np.concatenate([epoch.batch(k).rows for k in range(group, min(group + READ_AHEAD, len(epoch)))])
        ends = [end for _, end in announced]
        count = ends.index(int((split.pointers[rows] + split.sizes[rows]).max())) + 1
        mine = announced[:count]
        del announced[:count]
        assert mine == sorted(mine)
    assert not announced


def touched(start: int, end: int) -> range:
    """Pages of a range of bytes."""
    return range(int(start) // mmap.PAGESIZE, (int(end) - 1) // mmap.PAGESIZE + 1)


def test_a_moved_source_and_an_unknown_reader_are_named(photos: Store) -> None:
    with pytest.raises(ValueError, match="did you mean 'native'"):
        open_reader("nativ", photos)
    assert set(READERS) >= {"native", "torch"}
    from dataclasses import replace

    moved = replace(photos, source={**photos.source, "path": "/nowhere/at/all"})
    with pytest.raises(ValueError, match="/nowhere/at/all"):
        open_reader("torch", moved)
