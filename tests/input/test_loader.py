"""The Loader: what it yields is the trainer's, and it behaves as people expect of a DataLoader."""

import copy
import gc
import json
import os
import pickle
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as T

import prunekd
from input.reading import copy_of, damage
from prunekd.common.distributed import World
from prunekd.input import READERS, Batch, ViewSettings, eval_plan, open_reader, train_plan
from prunekd.input.loader import Loader
from prunekd.pruning import Subset, read_subset, select
from prunekd.store import Store
from prunekd.training import RunSpec, load_recipe
from prunekd.training.course import Course
from support import require

PACKAGES = {"ffcv": "ffcv", "dali": "nvidia.dali"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(store: Store, split: str = "train", **more: Any) -> Loader:
    return Loader(store, split, **{"batch_size": 8, "size": 12, "workers": 1, "dtype": torch.uint8, **more})


def ids_of(batches: Any) -> list[list[int]]:
    return [batch.ids.tolist() for batch in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return [i for batch in batches for i in batch]


def weighted(store: Store, keep: float = 0.5) -> Subset:
    chosen = select(store, "random", keep, seed=4)
    weights = np.linspace(0.5, 2, len(chosen), dtype=np.float32)
    return Subset(ids=chosen.ids, weights=weights, info=chosen.info)


def same(one: Batch, other: Batch) -> bool:
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ---- the trainer's batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_an_epoch_shows_what_the_trainers_shows(tiny_store: Store, tmp_path: Path, world_size: int) -> None:
    """Equal global batches: a recipe's 16 are 16 / world_size of each process here. Pixels, weights, ids and all."""
    subset = weighted(tiny_store)
    recipe = load_recipe("demo", ["batch_size=16", "seed=7"])
    spec = RunSpec(store=tiny_store, recipe=recipe, out=tmp_path / "run", subset=subset)
    for rank in range(world_size):
        course = Course(spec, World(rank, world_size, torch.device("cpu")))
        loader = load(
            tiny_store, subset=subset, batch_size=16 // world_size, size=None, view=recipe.train_view, seed=7,
            rank=rank, world_size=world_size,
        )  # fmt: skip
        with loader, open_reader("native", tiny_store, workers=1) as reader:
            assert len(loader) == course.steps_per_epoch == 3
            for epoch in (0, 1, 5):
                loader.set_epoch(epoch)
                batches = list(loader)
                assert len(batches) == 3
                for found, expected in zip(batches, reader.epoch(course.plan(epoch, 0, None)), strict=True):
                    assert found.weights is not None
                    assert same(found, expected)


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_reader_gives_the_same_ids_and_its_own_pixels(mixed_photos: Store, name: str) -> None:
    if name in PACKAGES:
        require(PACKAGES[name])
    view = ViewSettings(kind="random_resized_crop", size=24)
    plan = train_plan(mixed_photos.split("train"), ids=None, seed=5, epoch=1, batch_size=8, view=view)
    with (
        load(mixed_photos, reader=name, size=24, seed=5, workers=2) as loader,
        open_reader(name, mixed_photos, workers=2) as reader,
    ):
        loader.set_epoch(1)
        batches = list(loader)  # kept, while the reader uses its memory again
        expected = [Batch(b.images.clone(), b.labels, b.ids, b.weights) for b in reader.epoch(plan)]
        assert len(batches) == 5
        assert all(same(a, b) for a, b in zip(batches, expected, strict=True))
        assert loader.reader.bytes_read == reader.bytes_read


def test_an_evaluation_shows_every_sample_once_in_the_trainers_order_and_view(tiny_store: Store) -> None:
    split = tiny_store.split("val")
    with load(tiny_store, "val", batch_size=5) as loader, open_reader("native", tiny_store, "val") as reader:
        assert (loader.shuffle, loader.drop_last, loader.view.kind) == (False, False, "center")
        plan = eval_plan(split, batch_size=5, view=loader.view)
        for _ in range(2):
            found = list(loader)
            assert [len(b.ids) for b in found] == [5, 5, 5, 5, 5, 5, 2]
            assert all(same(a, b) for a, b in zip(found, reader.epoch(plan), strict=True))


# ---- which samples ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    count=st.integers(1, 96),
    batch_size=st.integers(1, 12),
    world_size=st.integers(1, 4),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    epoch=st.integers(0, 9),
)
def test_the_processes_together_see_an_epoch(
    tiny_store: Store, count: int, batch_size: int, world_size: int, shuffle: bool, drop_last: bool, epoch: int
) -> None:
    chosen = np.random.default_rng(count).permutation(96)[:count]
    step = batch_size * world_size
    loaders = [
        load(
            tiny_store,
            subset=chosen,
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
            size=4,
        )
        for rank in range(world_size)
    ]
    for loader in loaders:
        loader.set_epoch(epoch)
    rest = count % step
    if drop_last and count < step:
        with pytest.raises(ValueError, match="do not fill a batch"):
            next(iter(loaders[0]))
        assert [len(loader) for loader in loaders] == [0] * world_size
    elif shuffle and not drop_last and 0 < rest < world_size:
        with pytest.raises(ValueError, match=f"has {rest} for {world_size} processes.*drop_last=True"):
            next(iter(loaders[0]))
    else:
        shares = [ids_of(loader) for loader in loaders]
        assert [len(share) for share in shares] == [len(loader) for loader in loaders]
        seen = [i for share in shares for batch in share for i in batch]
        assert len(set(seen)) == len(seen) == (count - rest if drop_last else count)
        assert set(seen) <= set(chosen.tolist())
        steps = {len(share) for share in shares}
        assert len(steps) == 1 or (not shuffle and max(steps) - min(steps) == 1 and 0 < rest < world_size)
        # the samples of a step are those of one process with batches as large as all of theirs
        with load(tiny_store, subset=chosen, batch_size=step, shuffle=shuffle, drop_last=drop_last, size=4) as alone:
            alone.set_epoch(epoch)
            for k, whole in enumerate(ids_of(alone)):
                parts = [share[k] if k < len(share) else [] for share in shares]
                assert all(parts[rank] == whole[rank::world_size] for rank in range(world_size))
    for loader in loaders:
        loader.close()


def test_epochs_advance_by_themselves_and_differ_and_come_again(tiny_store: Store) -> None:
    with load(tiny_store) as loader, load(tiny_store) as other:
        assert (loader.epoch, len(loader)) == (0, 12)
        first, second = ids_of(loader), ids_of(loader)
        assert loader.epoch == 2
        assert first != second
        assert sorted(flat(first)) == sorted(flat(second)) == list(range(96))
        loader.set_epoch(0)
        assert ids_of(loader) == first
        other.set_epoch(1)
        assert ids_of(other) == second
    with load(tiny_store, seed=1) as loader:
        assert ids_of(loader) != first


def test_a_loop_left_early_is_followed_by_the_next_epoch_whole(tiny_store: Store) -> None:
    with load(tiny_store) as loader, load(tiny_store) as whole:
        epochs = [ids_of(whole) for _ in range(3)]
        for batch in loader:
            assert batch.ids.tolist() == epochs[0][0]
            break
        iterator = iter(loader)
        assert [next(iterator).ids.tolist() for _ in range(2)] == epochs[1][:2]
        assert ids_of(loader) == epochs[2]
        assert [batch.ids.tolist() for batch in iterator] == epochs[1][2:]  # the older one goes on


def test_an_iterator_that_is_never_used_costs_no_epoch(tiny_store: Store) -> None:
    """Lightning calls `iter` before it begins an epoch, and again when it does."""
    with load(tiny_store) as loader, load(tiny_store) as whole:
        iter(loader)
        unused = iter(loader)
        assert ids_of(loader) == ids_of(whole)
        assert ids_of(unused) == ids_of(whole)


def test_set_epoch_while_iterating_is_for_the_next_iteration(tiny_store: Store) -> None:
    with load(tiny_store) as loader, load(tiny_store) as whole:
        first = ids_of(whole)
        whole.set_epoch(6)
        sixth = ids_of(whole)
        found = []
        for batch in loader:
            loader.set_epoch(6)
            found.append(batch.ids.tolist())
            assert loader.state_dict()["epoch"] == 0
        assert found == first
        assert loader.state_dict()["epoch"] == 6
        assert ids_of(loader) == sixth


def test_the_view_may_change_between_epochs(tiny_store: Store) -> None:
    with load(tiny_store) as loader:
        for size in (8, 16):
            loader.view = replace(loader.view, size=size)
            assert {batch.images.shape for batch in loader} == {(8, 3, size, size)}


def test_subsets_come_as_objects_paths_and_ids_in_their_order_when_not_shuffled(
    tiny_store: Store, tmp_path: Path
) -> None:
    subset = weighted(tiny_store)
    subset.save(tmp_path / "half.parquet")
    forms: list[Any] = [subset, tmp_path / "half.parquet", str(tmp_path / "half.parquet")]
    for form in forms:
        with load(tiny_store, subset=form, shuffle=False) as loader:
            batches = list(loader)
            assert flat(ids_of(batches)) == subset.ids.tolist()
            found = torch.cat([batch.weights for batch in batches if batch.weights is not None])
            assert torch.equal(found, torch.from_numpy(np.asarray(subset.weights)))
    with load(str(tiny_store.path), subset=subset.ids, shuffle=False) as loader:  # type: ignore[arg-type]
        batches = list(loader)
        assert flat(ids_of(batches)) == subset.ids.tolist()
        assert all(batch.weights is None for batch in batches)
    with load(tiny_store, subset=subset) as one, load(tiny_store, subset=read_subset(forms[1]).ids[::-1]) as other:
        assert ids_of(one) == ids_of(other)  # a shuffled order does not depend on the order of ids


def test_weights_stay_with_their_samples(tiny_store: Store) -> None:
    subset = weighted(tiny_store)
    assert subset.weights is not None
    known = dict(zip(subset.ids.tolist(), subset.weights.tolist(), strict=True))
    with load(tiny_store, subset=subset) as loader:
        for images, labels, ids, weights in loader:
            assert weights is not None
            assert weights.dtype == torch.float32
            assert weights.tolist() == [known[i] for i in ids.tolist()]
            assert labels.tolist() == tiny_store.split("train").labels[ids.numpy()].tolist()
            assert len(images) == 8


# ---- pixels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("own", [False, True])
def test_pixels_are_normalized_as_torchvision_does(
    mixed_photos: Store, dtype: torch.dtype, close: float, own: bool
) -> None:
    mean, std = ((0.1, 0.5, 0.9), (0.3, 0.2, 1.0)) if own else (MEAN, STD)
    chosen: dict[str, Any] = {"mean": mean, "std": std} if own else {}
    with load(mixed_photos, size=24) as pixels, load(mixed_photos, size=24, dtype=dtype, **chosen) as loader:
        for found, raw in zip(list(loader), list(pixels), strict=True):
            expected = T.normalize(T.to_dtype(raw.images, torch.float32, scale=True), list(mean), list(std))
            assert found.images.dtype == dtype
            assert found.images.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(found.images.float(), expected, rtol=close, atol=close)
            assert torch.equal(found.ids, raw.ids)


def test_float32_is_what_a_loader_gives_unless_told_otherwise(tiny_store: Store) -> None:
    with prunekd.Loader(tiny_store, batch_size=4) as loader:
        batch = next(iter(loader))
        assert batch.images.shape == (4, 3, 224, 224)
        assert batch.images.dtype == torch.float32
        assert (loader.mean, loader.std) == (MEAN, STD)
        assert loader.view == ViewSettings(kind="random_resized_crop", size=224)


def test_batches_keep_their_pixels_whatever_comes_after(mixed_photos: Store) -> None:
    for dtype in (torch.uint8, torch.float32):
        with load(mixed_photos, size=24, dtype=dtype, batch_size=3) as loader:
            kept, copies = [], []
            for batch in loader:
                kept.append(batch)
                copies.append(batch.images.clone())
            list(loader)
        assert all(torch.equal(batch.images, known) for batch, known in zip(kept, copies, strict=True))
        addresses = {batch.images.data_ptr() for batch in kept}
        assert len(addresses) == len(kept) == 13


# ---- going on --------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    epoch=st.integers(0, 3),
    taken=st.integers(0, 12),
    before=st.sampled_from([1, 2, 4]),
    after=st.sampled_from([1, 2, 4]),
    named=st.booleans(),
)
def test_going_on_from_anywhere_loses_and_repeats_nothing(
    tiny_store: Store, epoch: int, taken: int, before: int, after: int, named: bool
) -> None:
    """Saved inside the loop after `taken` batches, gone on with by another Loader, in a world of another size."""
    with load(tiny_store, subset=weighted(tiny_store, 1.0)) as whole:
        whole.set_epoch(epoch)
        expected, following = ids_of(whole), ids_of(whole)
    states = []
    for rank in range(before):
        with load(
            tiny_store, subset=weighted(tiny_store, 1.0), batch_size=8 // before, rank=rank, world_size=before
        ) as loader:
            loader.set_epoch(epoch)
            iterator = iter(loader)
            for _ in range(taken):
                next(iterator)
            states.append(json.loads(json.dumps(loader.state_dict())))
            del iterator
            assert loader.state_dict() == states[-1]  # a loop that was left says where
    assert all(state == states[0] for state in states)
    assert (states[0]["epoch"], states[0]["batches_seen"]) == (epoch, taken)
    shares = []
    for rank in range(after):
        with load(
            tiny_store, subset=weighted(tiny_store, 1.0), batch_size=8 // after, rank=rank, world_size=after
        ) as loader:
            loader.load_state_dict(states[0])
            assert loader.state_dict() == states[0]
            if named:
                loader.set_epoch(epoch)  # as a loop over epochs does
            shares.append((ids_of(loader), ids_of(loader)))
    for k, epochs in enumerate((expected[taken:], following)):
        assert [len(share[k]) for share in shares] == [len(epochs)] * after
        for step, batch in enumerate(epochs):
            assert all(shares[rank][k][step] == batch[rank::after] for rank in range(after))


def test_another_epoch_forgets_the_place_and_a_finished_one_is_over(tiny_store: Store) -> None:
    with load(tiny_store) as loader:
        iterator = iter(loader)
        next(iterator)
        state = loader.state_dict()
        list(iterator)
        assert (loader.state_dict()["epoch"], loader.state_dict()["batches_seen"]) == (1, 0)
        loader.load_state_dict(state)
        loader.set_epoch(3)
        assert len(ids_of(loader)) == 12
        loader.load_state_dict(state)
        assert len(ids_of(loader)) == 11
        assert len(ids_of(loader)) == 12


@pytest.mark.parametrize(
    ("other", "names"),
    [
        ({"seed": 1}, "seed 0, this Loader has 1"),
        ({"batch_size": 4}, "global_batch_size 8, this Loader has 4"),
        ({"subset": np.arange(95)}, "samples "),
        ({"split": "val"}, "split train, this Loader has val"),
        ({"drop_last": False}, "drop_last True, this Loader has False"),
        ({"shuffle": False, "drop_last": True}, "shuffle True, this Loader has False"),
    ],
)
def test_a_state_of_another_loader_is_refused(tiny_store: Store, other: dict[str, Any], names: str) -> None:
    with (
        load(tiny_store) as one,
        load(tiny_store, **other) as another,
        pytest.raises(ValueError, match=f"{names}.*same store, subset, seed"),
    ):
        another.load_state_dict(one.state_dict())


@pytest.mark.parametrize("wrong", [{"epoch": -1}, {"batches_seen": None}, {"batches_seen": "3"}, {"epoch": 0.5}])
def test_a_state_that_names_no_place_is_refused(tiny_store: Store, wrong: dict[str, Any]) -> None:
    with load(tiny_store) as loader:
        with pytest.raises(
            ValueError, match=r"the state says epoch .* no whole numbers from 0 on; give what `state_dict` returned"
        ):
            loader.load_state_dict(loader.state_dict() | wrong)
        loader.load_state_dict(loader.state_dict() | {"batches_seen": 99})  # of a longer share of the epoch
        assert ids_of(loader) == []


# ---- processes -------------------------------------------------------------------------------------------------------


def test_the_world_is_asked_for_when_an_iteration_begins(tiny_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(tiny_store) as loader:
        monkeypatch.setenv("WORLD_SIZE", "2")
        for use in (list, len):
            with pytest.raises(ValueError, match=r"WORLD_SIZE is 2, but torch\.distributed is not initialized.*rank"):
                use(loader)  # type: ignore[operator]
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
        assert len(loader) == 6
        found = ids_of(loader)
    with load(tiny_store, rank=1, world_size=2) as given_one:
        assert ids_of(given_one) == found


def test_it_is_neither_pickled_nor_copied_nor_used_in_a_fork(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(tiny_store) as loader:
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="make one in each process"):
                attempt(loader)
        process = os.getpid()
        monkeypatch.setattr("os.getpid", lambda: process + 1)
        with pytest.raises(RuntimeError, match=f"belongs to process {process}.*in each process"):
            next(iter(loader))
        monkeypatch.undo()
        assert len(ids_of(loader)) == 12


# ---- threads ---------------------------------------------------------------------------------------------------------


def held() -> tuple[list[str], int]:
    """Python threads of readers, and open files."""
    gc.collect()
    threads = [thread.name for thread in threading.enumerate() if "prunekd" in thread.name]
    return threads, len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("end", ["close", "with", "del", "left early, then del", "iterator last"])
def test_threads_and_files_end_with_the_loader(tiny_store: Store, end: str) -> None:
    before = held()
    loader = load(tiny_store, workers=3)
    iterator = None
    if end == "with":
        with loader:
            list(loader)
    elif end == "left early, then del":
        for _ in loader:
            break
    elif end == "iterator last":
        iterator = iter(loader)
        next(iterator)
    else:
        list(loader)
    if end not in ("with",):
        assert held()[0] != before[0]
    if end == "close":
        loader.close()
        loader.close()
        with pytest.raises(ValueError, match="closed; make another"):
            next(iter(loader))
    del loader
    if iterator is not None:
        assert len(list(iterator)) == 11  # an iterator keeps what it needs
    del iterator
    patience = time.monotonic() + 20
    while held() != before and time.monotonic() < patience:
        time.sleep(0.01)
    assert held() == before


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"size": 0}, "view size is 0"),
        ({"size": 8, "view": ViewSettings(kind="full", size=9)}, "size is 8, but the view's is 9"),
        ({"dtype": torch.float64}, "dtype is torch.float64.*torch.bfloat16"),
        ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, "123.7.*divided by 255"),
        ({"std": (0.2, 0.2)}, "three numbers"),
        ({"device": "meta"}, "device is meta; it must be cpu, cuda or auto"),
        ({"reader": "natve"}, "did you mean 'native'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"rank": 1}, "rank is 1 and world_size None; give both"),
        ({"rank": 2, "world_size": 2}, r"rank is 2 and world_size 2; rank must be in"),
        ({"split": "test"}, "unknown split"),
        ({"subset": np.array([3, 3])}, "named more than once"),
        ({"subset": "nowhere.parquet"}, "nowhere.parquet does not exist"),
    ],
)
def test_errors_name_the_value(tiny_store: Store, wrong: dict[str, Any], message: str) -> None:
    threads = threading.active_count()
    with pytest.raises(ValueError, match=message):
        load(tiny_store, **wrong)
    assert threading.active_count() == threads


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(tiny_store: Store) -> None:
    for wrong, message in (({"device": "cuda"}, "torch sees no GPU.*doctor"), ({"pin": True}, "pin is True, but")):
        with pytest.raises(ValueError, match=message):
            load(tiny_store, **wrong)
    with load(tiny_store, device="auto") as loader:
        assert loader.device == torch.device("cpu")


def test_a_subset_of_another_split_or_store_is_refused(tiny_store: Store, mixed_photos: Store) -> None:
    with pytest.raises(ValueError, match="subset is one of the split 'train', not 'val'"):
        load(tiny_store, "val", subset=select(tiny_store, "random", 0.5))
    with pytest.raises(ValueError, match="was made for"):
        load(tiny_store, subset=select(mixed_photos, "random", 0.5))


def test_corrupt_samples_are_settled_as_asked_and_counted(mixed_photos: Store, tmp_path: Path) -> None:
    store = copy_of(mixed_photos, tmp_path)
    damage(store, 3, 0, bytes(40))
    with load(store, size=24) as loader, pytest.raises(ValueError, match=r"sample 3 .*cannot be decoded"):
        list(loader)
    with load(store, size=24, on_error="replace") as loader:
        seen = flat(ids_of(loader))
        assert 3 not in seen
        assert len(seen) == 40
        assert loader.reader.faults.counts == {"replaced": 1, "skipped": 0}


def test_it_says_what_it_is(tiny_store: Store) -> None:
    with load(tiny_store, subset=np.arange(48), dtype=torch.bfloat16) as loader:
        for part in ("'train'", "48 of 96 samples", "batch_size=8", "bfloat16 on cpu", "reader='native'", "epoch=0"):
            assert part in repr(loader)


# ---- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("pin", [None, False])
def test_batches_on_a_gpu_are_those_of_the_cpu(mixed_photos: Store, dtype: torch.dtype, pin: bool | None) -> None:
    subset = weighted(mixed_photos)
    common: dict[str, Any] = {"size": 64, "dtype": dtype, "subset": subset, "batch_size": 4}
    with load(mixed_photos, **common) as host, load(mixed_photos, device="cuda", pin=pin, **common) as device:
        for _ in range(3):
            for found, expected in zip(list(device), list(host), strict=True):
                assert found.images.device.type == found.labels.device.type == "cuda"
                assert found.ids.device.type == "cpu"
                assert found.images.is_contiguous(memory_format=torch.channels_last)
                torch.testing.assert_close(found.images.cpu(), expected.images, rtol=1e-2, atol=1e-6)
                assert same(
                    Batch(expected.images, found.labels.cpu(), found.ids, found.weights.cpu()),  # type: ignore[union-attr]
                    expected,
                )


@pytest.mark.gpu
def test_epochs_on_a_gpu_do_not_gather_memory(tiny_store: Store) -> None:
    with load(tiny_store, device="cuda", size=128, batch_size=32) as loader:
        for _ in range(3):
            list(loader)
        reserved = torch.cuda.memory_reserved()
        for _ in range(40):  # more than PyTorch has streams
            list(loader)
        assert torch.cuda.memory_reserved() <= reserved


@pytest.mark.gpu
def test_pinned_batches_on_the_host_for_copies_of_ones_own(tiny_store: Store) -> None:
    with load(tiny_store, pin=True, subset=weighted(tiny_store)) as loader, load(tiny_store) as plain:
        for batch in list(loader):
            assert all(tensor.is_pinned() for tensor in batch if tensor is not None)
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert not next(iter(plain)).images.is_pinned()
