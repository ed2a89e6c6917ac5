"""Dynamic policies against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunekd.pruning.epoch_policies import DYNAMIC_POLICIES, DynamicPolicy, Observations, create_dynamic

EMPTY = np.empty(0, np.float32)


def seen(losses: np.ndarray, mean: np.ndarray = EMPTY, variance: np.ndarray = EMPTY) -> Observations:
    return Observations(losses.astype(np.float32), mean.astype(np.float32), variance.astype(np.float32))


def nothing(count: int) -> Observations:
    unseen = np.full(count, np.nan)
    return seen(unseen, unseen, unseen)


def policy(name: str, count: int = 200, epochs: int = 8, seed: int = 3, **parameters: float) -> DynamicPolicy:
    return create_dynamic(name, np.arange(count) * 3 + 1, epochs=epochs, seed=seed, parameters=parameters)


@pytest.mark.parametrize("name", sorted(DYNAMIC_POLICIES))
@given(seed=st.integers(0, 2**63), epoch=st.integers(0, 30), data=st.data())
def test_choices_are_pure_sorted_and_within_the_ids(name: str, seed: int, epoch: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count = data.draw(st.integers(2, 60))
    ids = rng.choice(10_000, count, replace=False)
    losses = np.where(rng.random(count) < 0.2, np.nan, rng.random(count))
    observed = seen(losses, losses, losses**2)
    one = create_dynamic(name, ids, epochs=20, seed=seed).subset_for(epoch, observed)
    two = create_dynamic(name, rng.permutation(ids), epochs=20, seed=seed).subset_for(epoch, observed)
    assert np.array_equal(one.ids, two.ids)
    assert set(one.ids) <= set(ids.tolist())
    assert (np.diff(one.ids) > 0).all()
    assert (one.weights is None) == (two.weights is None)
    assert one.weights is None or one.weights.shape == one.ids.shape


def test_infobatch_is_unbiased() -> None:
    """The weighted sum over the samples that stay has the sum over all as its expectation."""
    rng = np.random.default_rng(0)
    count = 300
    losses, gradients = rng.gamma(1.0, 1.0, count), rng.normal(size=count)
    sums = []
    for seed in range(1500):
        chooser = policy("infobatch", count, epochs=100, seed=seed, drop=0.3)
        ids, weights = chooser.subset_for(5, seen(losses))
        assert weights is not None
        sums.append((gradients[(ids - 1) // 3] * weights).sum())
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - gradients.sum()) < 4 * error
    assert error < 0.5  # the bound says something


def test_infobatch_drops_below_the_mean_only_and_anneals() -> None:
    losses = np.concatenate([np.full(100, 1.0), np.full(100, 3.0)])
    losses[[0, 150]] = np.nan
    chooser = policy("infobatch", epochs=16, drop=0.5)
    ids, weights = chooser.subset_for(3, seen(losses))
    assert weights is not None
    kept = np.zeros(200, bool)
    kept[(ids - 1) // 3] = True
    assert kept[100:].all()
    assert kept[0]  # never seen
    assert 30 < kept[1:100].sum() < 70
    by_position = dict(zip((ids - 1) // 3, weights.tolist(), strict=True))
    assert {by_position[k] for k in np.flatnonzero(kept[1:100]) + 1} == {2.0}
    assert {by_position[k] for k in [0, *range(100, 200)]} == {1.0}
    for epoch, full in [(0, False), (13, False), (14, True), (15, True)]:  # 0.875 of 16 is 14
        assert (len(chooser.subset_for(epoch, seen(losses)).ids) == 200) == full
    assert len(chooser.subset_for(0, nothing(200)).ids) == 200


def test_rs2_takes_every_sample_once_in_a_round() -> None:
    chooser = policy("rs2", count=10, keep=0.3)
    subsets = [set(chooser.subset_for(epoch, nothing(10)).ids.tolist()) for epoch in range(6)]
    assert all(len(subset) == 3 for subset in subsets)
    assert len(subsets[0] | subsets[1] | subsets[2]) == 9
    assert len(subsets[3] | subsets[4] | subsets[5]) == 9
    assert subsets[0] != subsets[3]
    independent = policy("rs2", count=10, keep=0.5, replacement=1)
    shared = [
        len(set(independent.subset_for(k, nothing(10)).ids) & set(independent.subset_for(k + 1, nothing(10)).ids))
        for k in range(200)
    ]
    assert np.mean(shared) == pytest.approx(2.5, abs=0.25)


def test_ucb_keeps_the_highest_bounds() -> None:
    mean, variance = np.array([1.0, 2.0, 3.0, np.nan, 0.5, 0.0]), np.array([0.0, 0.0, 0.0, np.nan, 4.0, 0.0])
    chooser = policy("ucb", count=6, keep=0.5, confidence=1.0)
    ids, weights = chooser.subset_for(2, seen(mean, mean, variance))
    assert weights is None
    assert ((ids - 1) // 3).tolist() == [2, 3, 4]
    plain = policy("ucb", count=6, keep=0.5, confidence=0.0)
    assert ((plain.subset_for(2, seen(mean, mean, variance)).ids - 1) // 3).tolist() == [1, 2, 3]
    assert len(chooser.subset_for(0, nothing(6)).ids) == 6


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("infobath", {}, "did you mean 'infobatch'"),
        ("infobatch", {"drop": 1.0}, r"drop of InfoBatch is 1; it must be a probability in \[0, 1\)"),
        ("infobatch", {"aneal": 1.0}, "did you mean 'anneal'"),
        ("rs2", {"keep": 0.0}, "keep of RS2 is 0"),
        ("rs2", {"replacement": 0.5}, "replacement of RS2 is 0.5; it must be 0 or 1"),
        ("ucb", {"momentum": 1.0}, "momentum of UCB is 1"),
    ],
)
def test_wrong_settings_are_named(name: str, parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy(name, **parameters)
