"""Corrupt samples at run time: stopped at, replaced or left out, in the same way whatever reads."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prunekd.input import Batch, EpochPlan, Reader, ViewSettings, eval_plan, open_reader, train_plan
from prunekd.input.readers.faults import TRIES
from prunekd.store import Store, open_store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source

VIEW = ViewSettings(kind="random_resized_crop", size=20, scale=(0.2, 1.0))
CLASSES = 3
READERS = ("native", "torch")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """45 photographs in 3 classes; id = 15 * class + k."""
    folder = tmp_path_factory.mktemp("faults")
    rng = np.random.default_rng(5)
    for k in range(45):
        coarse = Image.fromarray(rng.integers(0, 256, size=(5, 6, 3), dtype=np.uint8))
        path = folder / "source" / "train" / f"class{k // 15}" / f"{k:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((60, 50), Image.Resampling.BICUBIC).save(path, quality=92)
    return convert(open_source(folder / "source"), folder / "store", ConvertSettings())


@pytest.fixture
def store(healthy: Store, tmp_path: Path) -> Store:
    """A copy that a test may damage; its source is a copy as well."""
    shutil.copytree(healthy.path, tmp_path / "store")
    shutil.copytree(healthy.source["path"], tmp_path / "source")
    description = tmp_path / "store" / "store.json"
    description.write_text(description.read_text().replace(healthy.source["path"], str(tmp_path / "source")))
    return open_store(tmp_path / "store")


def ended(payload: bytes) -> bytes:
    half = len(payload) // 2
    return payload[:half] + b"\xff\xd9" * ((len(payload) - half) // 2) + b"\0" * ((len(payload) - half) % 2)


def zeroed(payload: bytes) -> bytes:
    return payload[:100] + bytes(len(payload) - 100)


def headless(payload: bytes) -> bytes:
    return bytes(20) + payload[20:]


DAMAGES = (ended, zeroed, headless)


def damage(store: Store, ids: list[int], how: Callable[[bytes], bytes] = ended) -> None:
    """Damage samples alike in the store and in its source."""
    split = store.split("train")
    files = [Path(store.source["folders"]["train"]) / key for key in split.keys()]  # noqa: SIM118
    for row in split.rows(np.array(ids)).tolist():
        with split.payloads() as payloads:
            damaged = how(payloads.read(row))
        with split.path.open("r+b") as file:
            file.seek(int(split.pointers[row]))
            file.write(damaged)
        files[row].write_bytes(damaged)


def opened(store: Store, name: str = "native", on_error: str = "replace", workers: int = 2) -> Reader:
    return open_reader(name, store, "train", workers=0 if name == "torch" else workers, on_error=on_error)


def plan(store: Store, **more: Any) -> EpochPlan:
    split = store.split("train")
    chosen = {"ids": None, "seed": 3, "epoch": 2, "batch_size": 9, "weights": None, **more}
    if chosen["ids"] is None:
        chosen["weights"] = np.arange(45, dtype=np.float32) + 1
    return train_plan(split, view=VIEW, **chosen)


def collect(reader: Reader, plan_: EpochPlan) -> list[Batch]:
    with reader:
        return [Batch(*(None if v is None else v.clone() for v in batch)) for batch in reader.epoch(plan_)]  # type: ignore[arg-type]


def ids_of(batches: list[Batch]) -> list[int]:
    return [i for batch in batches for i in batch.ids.tolist()]


def pixels_of(store: Store, ids: list[int], plan_: EpochPlan) -> torch.Tensor:
    """What a reader of the healthy store delivers for these ids under the plan's seed and view index."""
    alone = EpochPlan(
        split=store.split("train"),
        ids=np.array(ids),
        batch_size=len(ids),
        view=plan_.view,
        seed=plan_.seed,
        view_index=plan_.view_index,
    )
    (batch,) = collect(opened(store), alone)
    return batch.images


@pytest.mark.parametrize("how", DAMAGES, ids=lambda how: how.__name__)
@pytest.mark.parametrize("name", READERS)
def test_a_replacement_is_kept_healthy_of_the_class_and_a_whole_sample(
    healthy: Store, store: Store, name: str, how: Callable[[bytes], bytes]
) -> None:
    broken = [2, 7, 20, 33, 44]
    damage(store, broken, how)
    epoch = plan(store)
    planned = epoch.ids.tolist()
    reader = opened(store, name)
    batches = collect(reader, epoch)
    delivered = ids_of(batches)
    assert len(delivered) == len(planned) == 45
    assert [a for a, b in zip(delivered, planned, strict=True) if b not in broken] == [
        b for b in planned if b not in broken
    ]
    for given_, wanted in zip(delivered, planned, strict=True):
        if wanted in broken:
            assert given_ not in broken
            assert given_ // 15 == wanted // 15
    for batch in batches:
        assert batch.labels.tolist() == [i // 15 for i in batch.ids.tolist()]
        assert batch.weights is not None
        assert batch.weights.tolist() == [i + 1 for i in batch.ids.tolist()]
        expected = pixels_of(healthy, batch.ids.tolist(), epoch)
        assert (batch.images.int() - expected.int()).abs().max() <= 2
    assert reader.faults.counts == {"replaced": 5, "skipped": 0}
    assert set(reader.faults.seen) == set(broken)


def test_replacements_are_the_same_in_every_reader_with_any_workers_and_ranks(store: Store) -> None:
    damage(store, [1, 3, 5, 18, 31, 40])
    native = collect(opened(store), plan(store))
    assert ids_of(collect(opened(store, workers=1), plan(store))) == ids_of(native)
    assert ids_of(collect(opened(store, "torch"), plan(store))) == ids_of(native)
    shares = [ids_of(collect(opened(store), plan(store, world_size=3, rank=r))) for r in range(3)]
    assert np.stack(shares, axis=1).ravel().tolist() == ids_of(native)
    resumed = collect(opened(store), plan(store, start_step=2))
    assert ids_of(resumed) == ids_of(native[2:])
    assert all(torch.equal(a.images, b.images) for a, b in zip(resumed, native[2:], strict=True))


def test_another_epoch_seed_or_sample_has_another_replacement(store: Store) -> None:
    damage(store, [1, 2])

    def stand_ins(**more: Any) -> tuple[int, int]:
        epoch = plan(store, **more)
        got = dict(zip(epoch.ids.tolist(), ids_of(collect(opened(store), epoch)), strict=True))
        return got[1], got[2]

    found = [stand_ins(epoch=e) for e in range(6)] + [stand_ins(seed=s) for s in range(10, 16)]
    assert len({a for a, _ in found}) >= 4
    assert any(a != b for a, b in found)


def test_replacements_come_from_the_subset(store: Store) -> None:
    kept = np.array([0, 1, 2, 16, 17, 18])
    damage(store, [0, 17])
    for epoch in range(8):
        delivered = ids_of(collect(opened(store), plan(store, ids=kept, epoch=epoch, batch_size=2)))
        assert set(delivered) <= {1, 2, 16, 18}
        assert sum(i < 15 for i in delivered) == 3


@pytest.mark.parametrize("name", READERS)
def test_a_class_without_a_healthy_sample_is_replaced_by_others(store: Store, name: str) -> None:
    damage(store, list(range(15)))
    reader = opened(store, name)
    batches = collect(reader, plan(store))
    assert min(ids_of(batches)) >= 15
    assert all(batch.labels.tolist() == [i // 15 for i in batch.ids.tolist()] for batch in batches)
    assert reader.faults.counts["replaced"] == 15


def test_where_nothing_is_healthy_the_reader_gives_up(store: Store) -> None:
    damage(store, list(range(45)))
    with pytest.raises(
        ValueError, match=rf"nothing can take the place of sample \d+.*{TRIES} kept samples of its class"
    ):
        collect(opened(store), plan(store))


@pytest.mark.parametrize("name", READERS)
def test_skipping_leaves_out_the_corrupt_and_nothing_else(store: Store, name: str) -> None:
    epoch = plan(store)
    whole = collect(opened(store, name), epoch)
    broken = [epoch.ids[k] for k in (0, 4, 8, 9, 26, 44)]
    damage(store, broken)
    reader = opened(store, name, on_error="skip")
    for before, after in zip(whole, collect(reader, epoch), strict=True):
        good = torch.tensor([i not in broken for i in before.ids.tolist()])
        assert before.weights is not None
        assert after.weights is not None
        assert torch.equal(after.ids, before.ids[good])
        assert torch.equal(after.labels, before.labels[good])
        assert torch.equal(after.weights, before.weights[good])
        assert torch.equal(after.images, before.images[good])
        assert after.images.is_contiguous(memory_format=torch.channels_last)
    assert reader.faults.counts == {"replaced": 0, "skipped": 6}
    assert set(reader.faults.seen) == set(broken)


def test_skipping_a_whole_batch_is_refused(store: Store) -> None:
    epoch = plan(store)
    damage(store, epoch.ids[:9].tolist())
    with pytest.raises(ValueError, match=r"none of the 9 samples of a batch.*on_error = replace"):
        collect(opened(store, on_error="skip"), epoch)


@pytest.mark.parametrize("how", DAMAGES, ids=lambda how: how.__name__)
@pytest.mark.parametrize("name", READERS)
def test_raising_names_the_first_and_the_reader_survives(
    store: Store, name: str, how: Callable[[bytes], bytes]
) -> None:
    epoch = plan(store)
    first, second = epoch.ids[10].item(), epoch.ids[12].item()
    damage(store, [first, second], how)
    key = store.split("train").keys(store.split("train").rows(np.array([first])))[0]
    with opened(store, name, on_error="raise") as reader:
        with pytest.raises(
            ValueError, match=rf"sample {first} \({key}\) in .*train.beton cannot be decoded: .*convert"
        ):
            list(reader.epoch(epoch))
        good = [i for i in range(15) if i not in (first, second)]
        assert len(list(reader.epoch(plan(store, ids=np.array(good), batch_size=2)))) == len(good) // 2


@pytest.mark.parametrize("on_error", ["replace", "skip"])
def test_a_file_that_ends_early_loses_only_what_lay_there(store: Store, on_error: str) -> None:
    split = store.split("train")
    order = np.argsort(split.pointers)
    with split.path.open("r+b") as file:
        file.truncate(int(split.pointers[order[-2]]) + 5)
    lost = set(split.ids[order[-2:]].tolist())
    reader = opened(store, on_error=on_error)
    delivered = ids_of(collect(reader, eval_plan(split, batch_size=9, view=VIEW)))
    assert not lost & set(delivered)
    assert set(split.ids.tolist()) - set(delivered) == lost
    assert set(reader.faults.seen) == lost
    assert len(delivered) == 45 - (2 if on_error == "skip" else 0)


@settings(max_examples=30)
@given(data=st.data())
def test_any_change_of_a_payload_is_noticed(
    healthy: Store, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Most flipped bits in entropy-coded data decode to wrong pixels without an error; the checksum shows them."""
    split = healthy.split("train")
    folder = tmp_path_factory.mktemp("flipped")
    shutil.copytree(healthy.path, folder / "store")
    store = open_store(folder / "store")
    changed = set()
    with store.split("train").path.open("r+b") as file:
        for row in data.draw(st.sets(st.integers(0, 44), max_size=6)):
            where = int(split.pointers[row]) + data.draw(st.integers(0, int(split.sizes[row]) - 1))
            file.seek(where)
            (old,) = file.read(1)
            file.seek(where)
            file.write(bytes([old ^ data.draw(st.integers(1, 255))]))
            changed.add(int(split.ids[row]))
    reader = opened(store, on_error="skip")
    assert (
        set(ids_of(collect(reader, eval_plan(store.split("train"), batch_size=45, view=VIEW))))
        == set(range(45)) - changed
    )
    assert set(reader.faults.seen) == changed
    shutil.rmtree(folder)


def test_an_unknown_choice_is_named(healthy: Store) -> None:
    with pytest.raises(ValueError, match="on_error is 'ignore'; it must be one of raise, replace, skip"):
        opened(healthy, on_error="ignore")
