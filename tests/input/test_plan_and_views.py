"""Plan and views: pure functions, the same for every world size, subset order and reader."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop

from prunekd.common.philox import philox4x32, uniforms
from prunekd.input import ViewSettings, eval_plan, order, train_plan, views
from prunekd.store import Store

RRC = ViewSettings(kind="random_resized_crop", size=8)

# Known answers of Philox4x32-10 published with Random123: counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    got = philox4x32(tuple(np.array([word], dtype=np.uint64) for word in counter), key)
    assert tuple(got[:, 0].tolist()) == expected


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(0, 2**40), min_size=1, max_size=200, unique=True),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 1000),
    data=st.data(),
)
def test_order_is_a_permutation_whose_subsets_keep_their_order(
    ids: list[int], seed: int, epoch: int, data: st.DataObject
) -> None:
    whole = order(seed, epoch, np.array(ids))
    assert sorted(whole.tolist()) == sorted(ids)
    subset = data.draw(st.lists(st.sampled_from(ids), unique=True))
    kept = order(seed, epoch, np.array(subset, dtype=np.int64))
    assert kept.tolist() == [i for i in whole.tolist() if i in set(subset)]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 300), world=st.integers(1, 5), batch=st.integers(1, 12))
def test_ranks_share_the_same_global_batches(n: int, world: int, batch: int) -> None:
    ids = np.arange(n) * 3
    whole = order(5, 2, ids)
    parts = [order(5, 2, ids, world, rank) for rank in range(world)]
    for step in range(n // (batch * world)):
        together = np.concatenate([part[step * batch : (step + 1) * batch] for part in parts])
        expected = whole[step * batch * world : (step + 1) * batch * world]
        assert sorted(together.tolist()) == sorted(expected.tolist())


def test_orders_differ_by_epoch_and_seed() -> None:
    ids = np.arange(100)
    assert order(0, 0, ids).tolist() != order(0, 1, ids).tolist()
    assert order(0, 0, ids).tolist() != order(1, 0, ids).tolist()
    assert order(0, 0, ids).tolist() == order(0, 0, ids[::-1]).tolist()


def test_uniforms_are_uniform_and_streams_are_independent() -> None:
    drawn = np.concatenate([uniforms(3, 1, stream, np.arange(20_000)) for stream in (0, 1)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(drawn.mean(1), 0.5, atol=0.01)
    np.testing.assert_allclose(drawn.var(1), 1 / 12, atol=0.003)
    off_diagonal = np.corrcoef(drawn) - np.eye(8)
    assert np.abs(off_diagonal).max() < 0.03


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    low=st.floats(0.05, 1),
    seed=st.integers(0, 2**40),
)
def test_random_crops_lie_inside_and_keep_to_area_and_aspect(width: int, height: int, low: float, seed: int) -> None:
    n = 50
    settings_ = ViewSettings(kind="random_resized_crop", size=8, scale=(low, 1.0), flip=0.5)
    boxes, flips = views(settings_, seed, 4, np.arange(n), np.full(n, width), np.full(n, height))
    left, top, w, h = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (w >= 1).all()
    assert (h >= 1).all()
    assert (left + w <= width).all()
    assert (top + h <= height).all()
    assert flips.dtype == bool
    # rounding matters for small images; the fallback crop is below a `low` close to 1, or of odd images
    if min(width, height) >= 60 and 0.6 < width / height < 1.6 and low <= 0.4:
        assert (w * h >= 0.9 * low * width * height - 2 * (w + h)).all()
        assert (w / h > 0.7).all()
        assert (w / h < 1.43).all()


def test_random_crops_are_distributed_as_torchvisions() -> None:
    n, width, height = 6000, 320, 213
    boxes, flips = views(RRC, 11, 0, np.arange(n), np.full(n, width), np.full(n, height))
    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)])
    for mine, other in ((boxes[:, 1], theirs[:, 0]), (boxes[:, 0], theirs[:, 1]), (boxes[:, 3], theirs[:, 2])):
        assert kolmogorov_smirnov(mine, other) < 1.95 * np.sqrt(2 / n)  # the 0.1 % level
    assert kolmogorov_smirnov(boxes[:, 2] * boxes[:, 3], theirs[:, 2] * theirs[:, 3]) < 1.95 * np.sqrt(2 / n)
    assert abs(flips.mean() - 0.5) < 0.03


def kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance between two empirical distribution functions."""
    grid = np.union1d(a, b)
    cdf_a = np.searchsorted(np.sort(a), grid, side="right") / len(a)
    cdf_b = np.searchsorted(np.sort(b), grid, side="right") / len(b)
    return float(np.abs(cdf_a - cdf_b).max())


def test_pad_crop_shifts_by_up_to_the_padding_and_every_shift_occurs() -> None:
    spec = ViewSettings(kind="pad_crop", size=32, padding=4)
    boxes, _ = views(spec, 0, 0, np.arange(5000), np.full(5000, 32), np.full(5000, 32))
    assert set(map(tuple, boxes[:, :2].tolist())) == {(x, y) for x in range(-4, 5) for y in range(-4, 5)}
    assert (boxes[:, 2:] == 32).all()


def test_center_and_full_views() -> None:
    center = ViewSettings(kind="center", size=224, crop_ratio=0.875)
    boxes, flips = views(center, 0, 0, np.arange(2), np.array([400, 300]), np.array([200, 500]))
    assert boxes.tolist() == [[112, 12, 175, 175], [19, 119, 262, 262]]
    assert not flips.any()
    full, _ = views(ViewSettings(kind="full", size=8), 0, 0, np.arange(1), np.array([30]), np.array([20]))
    assert full.tolist() == [[0, 0, 30, 20]]


def test_a_view_depends_on_its_own_sample_only() -> None:
    ids, sizes = np.array([7, 900, 12]), np.array([100, 120, 90])
    together = views(RRC, 1, 2, ids, sizes, sizes)
    for i in range(3):
        alone = views(RRC, 1, 2, ids[i : i + 1], sizes[i : i + 1], sizes[i : i + 1])
        assert alone.boxes[0].tolist() == together.boxes[i].tolist()
        assert alone.flips[0] == together.flips[i]
    other = views(RRC, 1, 3, ids, sizes, sizes)
    assert other.boxes.tolist() != together.boxes.tolist()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "crop"}, "view kind is 'crop'"),
        ({"size": 0}, "view size is 0"),
        ({"scale": (0.5, 0.2)}, "view scale"),
        ({"ratio": (0.0, 1.0)}, "view ratio"),
        ({"flip": 1.5}, "view flip is 1.5"),
        ({"crop_ratio": 0.0}, "view crop_ratio is 0.0"),
        ({"padding": -1}, "view padding is -1"),
    ],
)
def test_wrong_view_settings_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewSettings(**{"kind": "full", "size": 8, **wrong})  # type: ignore[arg-type]


def test_train_plan_drops_the_remainder_and_carries_weights(tiny_store: Store) -> None:
    split = tiny_store.split("train")
    ids = split.ids[:50]
    weights = (ids + 1).astype(np.float32)
    plan = train_plan(split, ids=ids, weights=weights, seed=0, epoch=3, batch_size=16, view=RRC)
    batches = [plan.batch(i) for i in range(len(plan))]
    assert [len(b.ids) for b in batches] == [16, 16, 16]
    for batch in batches:
        assert batch.weights is not None
        assert batch.weights.tolist() == (batch.ids + 1).tolist()
        assert split.ids[batch.rows].tolist() == batch.ids.tolist()
    assert np.concatenate([b.ids for b in batches]).tolist() == order(0, 3, ids)[:48].tolist()
    resumed = train_plan(split, ids=ids, seed=0, epoch=3, batch_size=16, view=RRC, start_step=2)
    assert len(resumed) == 1
    assert resumed.batch(2).ids.tolist() == batches[2].ids.tolist()


def test_train_plan_refuses_what_it_cannot_do(tiny_store: Store) -> None:
    split = tiny_store.split("train")
    with pytest.raises(ValueError, match="10 samples do not fill a batch of 16"):
        train_plan(split, ids=split.ids[:10], seed=0, epoch=0, batch_size=16, view=RRC)
    with pytest.raises(ValueError, match="not divisible by the 3 processes"):
        train_plan(split, ids=None, seed=0, epoch=0, batch_size=16, view=RRC, world_size=3)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_eval_plans_cover_every_sample_once(tiny_store: Store, world: int) -> None:
    split = tiny_store.split("val")
    seen = []
    for rank in range(world):
        plan = eval_plan(split, batch_size=5, view=RRC, world_size=world, rank=rank)
        seen += [i for n in range(plan.end_batch) for i in plan.batch(n).ids.tolist()]
    assert sorted(seen) == split.ids.tolist()


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_id_named_twice_is_refused(tiny_store: Store, shuffle: bool) -> None:
    ids = np.array([5, 7, 9, 5, 1, 9, 9])
    split, view = tiny_store.split("train"), ViewSettings(kind="full", size=12)
    with pytest.raises(ValueError, match="the plan names 3 ids more than once, such as 5; name each once"):
        train_plan(split, ids=ids, seed=0, epoch=0, batch_size=2, view=view, shuffle=shuffle)
    if shuffle:
        with pytest.raises(ValueError, match="the plan names 3 ids more than once"):
            order(0, 0, ids)
