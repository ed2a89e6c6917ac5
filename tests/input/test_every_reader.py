"""What every reader promises, whatever decodes: the plan's samples, nothing but them read, nothing left behind."""

import gc
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from input.reading import collect, damage, opened, plan_of, seen
from prunekd.input import READERS, EpochPlan, ViewSettings, eval_plan, open_reader
from prunekd.store import Store, open_store
from support import require

PACKAGES = {"ffcv": "ffcv", "dali": "nvidia.dali"}
RRC = ViewSettings(kind="random_resized_crop", size=24, scale=(0.1, 1.0))
CENTER = ViewSettings(kind="center", size=24)
FULL = ViewSettings(kind="full", size=40)


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest) -> str:
    """Every reader; `torch` reads the source, the others the store."""
    if request.param in PACKAGES:
        require(PACKAGES[request.param])
    return str(request.param)


@pytest.fixture(params=[name for name in READERS if name != "torch"])
def store_reader(request: pytest.FixtureRequest) -> str:
    """Every reader that reads the store."""
    if request.param in PACKAGES:
        require(PACKAGES[request.param])
    return str(request.param)


def plan(store: Store, view: ViewSettings = RRC, **more: Any) -> EpochPlan:
    return plan_of(store, view, **more)


def test_batches_have_the_promised_types_and_weights(mixed_photos: Store, name: str) -> None:
    split = mixed_photos.split("train")
    weights = np.linspace(1, 2, len(split), dtype=np.float32)
    with opened(name, mixed_photos) as reader:
        weighted = next(iter(reader.epoch(plan(mixed_photos, weights=weights, ids=split.ids))))
        assert next(iter(reader.epoch(plan(mixed_photos)))).weights is None
    assert weighted.images.dtype == torch.uint8
    assert weighted.images.shape == (7, 3, 24, 24)
    assert weighted.images.is_contiguous(memory_format=torch.channels_last)
    assert weighted.labels.dtype == weighted.ids.dtype == torch.int64
    assert weighted.weights is not None
    rows = split.rows(weighted.ids.numpy())
    assert np.array_equal(weighted.labels.numpy(), split.labels[rows])
    assert np.array_equal(weighted.weights.numpy(), weights[rows])


def test_neither_workers_nor_a_resumption_nor_a_second_reader_change_anything(mixed_photos: Store, name: str) -> None:
    few = 0 if name == "torch" else 1
    with opened(name, mixed_photos, workers=few) as one, opened(name, mixed_photos, workers=2) as two:
        whole = collect(one, plan(mixed_photos))
        for other in (collect(two, plan(mixed_photos)), collect(one, plan(mixed_photos))):
            for a, b in zip(whole, other, strict=True):
                assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        rest = collect(two, plan(mixed_photos, start_step=2))
        assert collect(two, plan(mixed_photos, start_step=5)) == []
    assert len(whole) == 5
    for a, b in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_every_sample_is_seen_once_in_an_evaluation(mixed_photos: Store, name: str) -> None:
    """The last batch is short, and a rank may have nothing of it."""
    split = mixed_photos.split("train")
    with opened(name, mixed_photos) as reader:
        for world_size in (1, 3):
            ids = []
            for rank in range(world_size):
                epoch = eval_plan(split, batch_size=9, view=CENTER, world_size=world_size, rank=rank)
                batches = collect(reader, epoch)
                assert [b[2].tolist() for b in batches] == [epoch.batch(k).ids.tolist() for k in range(len(epoch))]
                assert [len(b[0]) for b in batches] == [len(b[2]) for b in batches]
                ids += [i for b in batches for i in b[2].tolist()]
            assert sorted(ids) == split.ids.tolist()


def test_ranks_share_the_batches_of_one(mixed_photos: Store, name: str) -> None:
    kept = mixed_photos.split("train").ids[3:39]
    with opened(name, mixed_photos) as reader:
        whole = collect(reader, plan(mixed_photos, ids=kept, batch_size=12))
        shares = [collect(reader, plan(mixed_photos, ids=kept, batch_size=12, world_size=3, rank=r)) for r in range(3)]
    assert sorted(i for batch in whole for i in batch[2].tolist()) == kept.tolist()
    for batch, *parts in zip(whole, *shares, strict=True):
        for rank, part in enumerate(parts):
            assert all(torch.equal(theirs, mine[rank::3]) for theirs, mine in zip(part, batch, strict=True))


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.2, 0.05])
def test_every_keep_ratio_delivers_its_samples_and_reads_no_others(
    mixed_photos: Store, store_reader: str, keep: float
) -> None:
    split = mixed_photos.split("train")
    kept = np.random.default_rng(7).permutation(split.ids)[: round(40 * keep)]
    epoch = plan(mixed_photos, ids=kept, batch_size=2)
    with opened(store_reader, mixed_photos) as reader:
        seen(reader, plan(mixed_photos))  # the decoder itself is read from files
        warm, before = reader.bytes_read, bytes_read_by_this_process()
        assert seen(reader, epoch) == epoch.ids.tolist()
        asked = bytes_read_by_this_process() - before
        payload = int(split.sizes[split.rows(kept)].sum())
        assert reader.bytes_read - warm == payload
        assert reader.bytes_read == reader.payload_bytes
    assert payload <= asked <= 1.05 * payload


def bytes_read_by_this_process() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_subset_resolution_and_batch_size_may_change_from_epoch_to_epoch(mixed_photos: Store, name: str) -> None:
    ids = mixed_photos.split("train").ids
    with opened(name, mixed_photos) as reader:
        for kept, batch_size, size in ((ids[:8], 4, 24), (ids, 8, 40), (ids[5:9], 2, 16), (ids[::-1], 13, 24)):
            view = ViewSettings(kind="random_resized_crop", size=size)
            epoch = plan(mixed_photos, view, batch_size=batch_size, ids=kept)
            batches = collect(reader, epoch)
            assert [i for b in batches for i in b[2].tolist()] == epoch.ids.tolist()
            assert {tuple(b[0].shape) for b in batches} == {(batch_size, 3, size, size)}


def test_batches_keep_their_pixels_whatever_comes_after(mixed_photos: Store, name: str) -> None:
    epoch = plan(mixed_photos, batch_size=3)
    with opened(name, mixed_photos) as reader:
        known = collect(reader, epoch)
        kept = list(reader.epoch(epoch))
        list(reader.epoch(plan(mixed_photos, batch_size=3, epoch=5)))
    assert len(kept) == len(known) > 5
    for batch, (images, labels, ids) in zip(kept, known, strict=True):
        assert torch.equal(batch.images, images)
        assert torch.equal(batch.labels, labels)
        assert torch.equal(batch.ids, ids)


def test_a_store_may_be_opened_twice_or_given_by_its_path(
    mixed_photos: Store, name: str, tiny_store: Store, tmp_path: Path
) -> None:
    """A plan from one opening goes with a reader from another; one over other samples is refused."""
    other = open_store(mixed_photos.path)
    here, there = plan(mixed_photos), plan(other)
    assert here.split is not there.split
    with opened(name, mixed_photos) as reader, open_reader(name, str(mixed_photos.path), workers=2) as by_path:
        known = collect(reader, here)
        for found in (collect(reader, there), collect(by_path, here)):
            assert all(torch.equal(a[0], b[0]) for a, b in zip(known, found, strict=True))
        relabelled = replace(here, split=replace(here.split, labels=here.split.labels[::-1].copy()))
        for foreign in (plan(tiny_store), relabelled):
            with pytest.raises(ValueError, match=r"the plan is over .* this reader reads .*plan over the split"):
                next(iter(reader.epoch(foreign)))


def test_two_epochs_may_run_at_once(mixed_photos: Store, name: str) -> None:
    first, second = plan(mixed_photos), plan(mixed_photos, FULL, batch_size=5, epoch=8)
    with opened(name, mixed_photos) as reader:
        alone = collect(reader, first), collect(reader, second)
        pairs = [(a.images.clone(), b.images.clone()) for a, b in zip(reader.epoch(first), reader.epoch(second))]  # noqa: B905
    assert len(pairs) == 5
    for k, (a, b) in enumerate(pairs):
        assert torch.equal(a, alone[0][k][0])
        assert torch.equal(b, alone[1][k][0])


def test_loops_left_early_leave_nothing_behind(mixed_photos: Store, name: str) -> None:
    whole = plan(mixed_photos)
    with opened(name, mixed_photos) as reader:
        seen(reader, whole)
    before = held_by_this_process()
    with opened(name, mixed_photos) as reader:
        for k in range(4 if name == "torch" else 12):  # a DataLoader starts its processes for each
            for batch in reader.epoch(plan(mixed_photos, batch_size=3, epoch=k)):
                del batch  # it may live in shared memory
                if k % 3:
                    break
        threads = held_by_this_process()[0]
        assert seen(reader, whole) == whole.ids.tolist()
        unfinished = reader.epoch(whole)
        next(unfinished)
    unfinished.close()  # type: ignore[attr-defined]
    del unfinished
    patience = time.monotonic() + 20  # a thread that was joined leaves /proc a little later
    while held_by_this_process() != before and time.monotonic() < patience:
        time.sleep(0.01)
    assert held_by_this_process() == before
    assert threads <= before[0] + 12  # of one reader, not of twelve epochs


def held_by_this_process() -> tuple[int, int, int]:
    """Threads of the operating system, Python's threads, open files."""
    gc.collect()
    return len(os.listdir("/proc/self/task")), threading.active_count(), len(os.listdir("/proc/self/fd"))


def test_an_error_in_the_loop_is_the_callers(mixed_photos: Store, name: str) -> None:
    with opened(name, mixed_photos) as reader:
        loop = reader.epoch(plan(mixed_photos))
        next(loop)
        with pytest.raises(ValueError, match="mine"):
            loop.throw(ValueError("mine"))  # type: ignore[attr-defined]
        assert len(seen(reader, plan(mixed_photos))) == 35


def test_raising_names_the_sample_and_the_reader_survives(damaged_photos: Store, store_reader: str) -> None:
    split, epoch = damaged_photos.split("train"), plan(damaged_photos)
    first = int(epoch.ids[10])
    row = split.rows(np.array([first]))
    damage(damaged_photos, int(row[0]), int(split.sizes[row[0]]) // 2, b"\xff\xd9" * 40)
    with opened(store_reader, damaged_photos) as reader:
        says = rf"sample {first} \({split.keys(row)[0]}\) in .*train.beton cannot be decoded: .*convert"
        with pytest.raises(ValueError, match=says):
            seen(reader, epoch)
        good = plan(damaged_photos, ids=np.setdiff1d(split.ids, [first]))
        assert seen(reader, good) == good.ids.tolist()


def test_a_file_that_ends_early_is_noticed(damaged_photos: Store, store_reader: str) -> None:
    split = damaged_photos.split("train")
    last = int(np.argmax(split.pointers))
    with opened(store_reader, damaged_photos) as reader:
        with split.path.open("r+b") as file:
            file.truncate(int(split.pointers[last]) + 5)
        with pytest.raises(ValueError, match=rf"sample {split.ids[last]} "):
            seen(reader, eval_plan(split, batch_size=4, view=RRC))


@pytest.mark.parametrize("view", [RRC, CENTER], ids=lambda v: v.kind)
@pytest.mark.parametrize("on_error", ["replace", "skip"])
def test_corrupt_samples_are_settled_as_in_the_native_reader(
    damaged_photos: Store, store_reader: str, on_error: str, view: ViewSettings
) -> None:
    split = damaged_photos.split("train")
    raw = int(np.flatnonzero(split.modes)[0])
    rows = [3, 20, 21, raw]
    for row in rows:
        damage(damaged_photos, row, int(split.sizes[row]) // 2, bytes(int(split.sizes[row]) // 4))
    epoch = eval_plan(split, batch_size=8, view=view)
    with (
        opened(store_reader, damaged_photos, on_error=on_error) as reader,
        opened("native", damaged_photos, on_error=on_error) as native,
    ):
        mine, other = collect(reader, epoch), collect(native, epoch)
        expected = {"replaced": 0, "skipped": 0} | {"replaced" if on_error == "replace" else "skipped": 4}
        assert reader.faults.counts == native.faults.counts == expected
        assert set(reader.faults.seen) == set(native.faults.seen) == set(split.ids[rows].tolist())
    for (images, labels, ids), (native_images, native_labels, native_ids) in zip(mine, other, strict=True):
        assert torch.equal(ids, native_ids)
        assert torch.equal(labels, native_labels)
        assert (images.int() - native_images.int()).abs().float().mean() < 6  # other filters, other DCTs


def test_a_batch_of_corrupt_samples_alone_is_settled(damaged_photos: Store, store_reader: str) -> None:
    split = damaged_photos.split("train")
    epoch = plan(damaged_photos, batch_size=4)
    for row in split.rows(epoch.ids[4:8]).tolist():
        damage(damaged_photos, row, 0, bytes(40))
    with (
        opened(store_reader, damaged_photos, on_error="replace") as reader,
        opened("native", damaged_photos, on_error="replace") as native,
    ):
        assert seen(reader, epoch) == seen(native, epoch)
        assert reader.faults.counts == {"replaced": 4, "skipped": 0}
