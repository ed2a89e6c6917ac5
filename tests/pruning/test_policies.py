"""Policies against plain loops, and what every policy owes: exact counts, nestedness, indifference to input order."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunekd.pruning.policies import BALANCES, POLICIES, count_kept
from prunekd.pruning.policies.ccs import stratum
from prunekd.pruning.policies.ordering import by_chance, by_difficulty

RATIOS = [0.1, 0.2, 0.3, 0.37, 0.4, 0.5, 0.63, 0.7, 0.9, 1.0]


@st.composite
def samples(draw, most=60):
    """Labels, ids with gaps in any order, and scores with ties."""
    labels = np.array(draw(st.lists(st.integers(0, 4), min_size=1, max_size=most)), dtype=np.int64)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    ids = rng.choice(10 * len(labels), size=len(labels), replace=False).astype(np.int64)
    scores = rng.integers(0, draw(st.sampled_from([3, 1000])), size=len(labels)).astype(np.float32)
    return labels, ids, scores


def features_of(ids):
    """Features float16 (n, 3) that each id determines."""
    return np.cos(ids[:, None] * np.array([1.0, 2.3, 0.7])).astype(np.float16)


def rank(policy, labels, ids, scores, balance=None, seed=0, keep=0.5, **parameters):
    entry = POLICIES[policy]
    if "features" in entry.needs:  # these are given their samples in order of id
        order = np.argsort(ids)
        labels, ids, scores = labels[order], ids[order], scores[order]
    offered = {
        "keep": keep,
        "p_mean": (ids * 37 % 101) / 101,
        "features": features_of(ids),
        "progress": lambda done, total: None,
    }
    parameters |= {name: offered[name] for name in entry.needs if name not in parameters}
    return entry.rank(
        scores if entry.needs_score else None,
        labels,
        ids,
        seed,
        balance=balance or entry.default_balance,
        **{**entry.parameters, **parameters},
    )


def allowed(policy):
    if policy in ("herding", "k_center", "d2"):
        return [balance for balance in BALANCES if balance != "none"]
    return ["none"] if policy == "ccs" else list(BALANCES)


CASES = [(policy, balance) for policy in POLICIES for balance in allowed(policy)]


def medium_by_loops(labels, ids, scores, num_classes, keep):
    """P2's released rule, class by class, as lists."""
    quota = int(len(labels) / num_classes * keep)
    kept = []
    for c in range(num_classes):
        members = sorted(
            (s, i) for s, i, y in zip(scores.tolist(), ids.tolist(), labels.tolist(), strict=True) if y == c
        )
        order = [i for _, i in members]
        if quota < len(order):
            m = quota // 2
            q = quota - m
            mid = int(len(order) / 2)
            kept += order[mid : mid + m] + order[mid - q : mid]
        else:
            kept += order
    return kept


@given(samples(), st.sampled_from([5, 6]), st.floats(0.01, 1))
def test_medium_is_the_papers_rule(drawn, num_classes, keep):
    labels, ids, scores = drawn
    expected = medium_by_loops(labels, ids, scores, num_classes, keep)
    sizes = np.bincount(labels, minlength=num_classes)
    if not expected:
        with pytest.raises(ValueError, match=r"no sample in a class"):
            count_kept(keep, sizes, "quota")
        return
    count = count_kept(keep, sizes, "quota")
    assert count == len(expected)
    assert set(rank("medium", labels, ids, scores)[:count].tolist()) == set(expected)


@pytest.mark.parametrize("size", range(1, 12))
def test_medium_ranks_one_class_from_the_middle_outwards(size):
    ids = np.arange(size, dtype=np.int64)
    middle = size // 2
    expected = []
    for step in range(size):
        expected += [r for r in (middle - 1 - step, middle + step) if 0 <= r < size]
    ranking = rank("medium", np.zeros(size, dtype=np.int64), ids, ids.astype(np.float64))
    assert ranking.tolist() == expected


def test_medium_keeps_the_counts_of_the_released_cifar100_subsets():
    labels = np.repeat(np.arange(100), 500)
    ids = np.arange(50000)
    scores = np.random.default_rng(0).random(50000)
    ranking = rank("medium", labels, ids, scores)
    for keep, per_class in [(0.1, 50), (0.2, 100), (0.3, 150), (0.4, 200), (0.5, 250), (0.7, 350)]:
        count = count_kept(keep, np.full(100, 500), "quota")
        assert np.bincount(labels[ranking[:count]]).tolist() == [per_class] * 100


def test_medium_without_balance_is_one_band_over_all():
    labels = np.array([0, 0, 0, 1, 1, 1])
    ids = np.arange(6)
    ranking = rank("medium", labels, ids, np.array([0.0, 1, 2, 3, 4, 5]), balance="none")
    assert ranking.tolist() == [2, 3, 1, 4, 0, 5]


@given(samples())
def test_hardest_and_easiest_are_the_ends(drawn):
    labels, ids, scores = drawn
    pairs = list(zip(scores.tolist(), ids.tolist(), strict=True))
    assert rank("hardest", labels, ids, scores).tolist() == [i for _, i in sorted(pairs, key=lambda p: (-p[0], p[1]))]
    assert rank("easiest", labels, ids, scores).tolist() == [i for _, i in sorted(pairs)]


@given(samples(), st.integers(0, 5))
def test_equal_balance_takes_from_each_class_in_turn(drawn, seed):
    labels, ids, scores = drawn
    label_of = dict(zip(ids.tolist(), labels.tolist(), strict=True))
    for policy in ("random", "hardest", "medium"):
        ranking = rank(policy, labels, ids, scores, balance="equal", seed=seed)
        left = np.bincount(labels, minlength=5)
        taken = np.zeros(5, dtype=int)
        for i in ranking.tolist():
            taken[label_of[i]] += 1
            # Nobody is ahead of a class that still has samples by more than one.
            assert all(taken.max() - taken[c] <= 1 for c in range(5) if taken[c] < left[c])


@given(samples())
def test_proportional_balance_is_websters_apportionment(drawn):
    labels, ids, scores = drawn
    label_of = dict(zip(ids.tolist(), labels.tolist(), strict=True))
    sizes = np.bincount(labels, minlength=5)
    ranking = rank("hardest", labels, ids, scores, balance="proportional").tolist()
    taken = np.zeros(5, dtype=int)
    for i in ranking:
        claims = {c: sizes[c] / (2 * taken[c] + 1) for c in range(5) if taken[c] < sizes[c]}
        assert claims[label_of[i]] == pytest.approx(max(claims.values()))
        taken[label_of[i]] += 1


def test_proportional_balance_is_exact_where_the_shares_are_whole():
    labels = np.repeat([0, 1, 2], [10, 30, 60])
    ids = np.arange(100)
    for keep in (0.1, 0.2, 0.5, 0.9):
        ranking = rank("random", labels, ids, None, balance="proportional")
        counts = np.bincount(labels[ranking[: round(100 * keep)]])
        assert counts.tolist() == [round(10 * keep), round(30 * keep), round(60 * keep)]


def test_quota_balance_keeps_small_classes_whole():
    labels = np.repeat([0, 1, 2], [2, 30, 58])
    ids = np.arange(90)
    count = count_kept(0.5, np.array([2, 30, 58]), "quota")
    for policy in ("random", "hardest", "easiest", "medium"):
        ranking = rank(policy, labels, ids, np.sin(ids), balance="quota")
        assert np.bincount(labels[ranking[:count]]).tolist() == [2, 15, 15]


@pytest.mark.parametrize(("policy", "balance"), CASES)
@settings(max_examples=25)
@given(drawn=samples(most=40), seed=st.integers(0, 3))
def test_ranking_is_a_permutation_that_ignores_the_order_of_the_input(policy, balance, drawn, seed):
    labels, ids, scores = drawn
    parameters = {"low": 0.0, "high": 1.0} if policy == "window" else {"beta": 0.0} if policy == "ccs" else {}
    ranking = rank(policy, labels, ids, scores, balance, seed, **parameters)
    assert sorted(ranking.tolist()) == sorted(ids.tolist())
    shuffled = np.random.default_rng(seed).permutation(len(ids))
    again = rank(policy, labels[shuffled], ids[shuffled], scores[shuffled], balance, seed, **parameters)
    assert ranking.tolist() == again.tolist()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any), st.sampled_from(list(BALANCES)))
def test_counts_grow_with_the_ratio_and_are_exact(sizes, balance):
    sizes = np.array(sizes)
    total = int(sizes.sum())
    counts = []
    for keep in RATIOS:
        if balance == "quota" and int(total / len(sizes) * keep) == 0:
            continue
        counts.append(count_kept(keep, sizes, balance))
        if balance != "quota":
            assert counts[-1] == max(1, math.floor(total * keep + 0.5))
    assert all(a <= b for a, b in pairwise(counts))
    assert all(1 <= count <= total for count in counts)


def test_random_depends_on_the_seed_and_favours_nobody():
    ids = np.arange(40, dtype=np.int64)
    kept = np.zeros(40)
    for seed in range(400):
        kept[by_chance(seed, ids)[:20]] += 1
    # Binomial(400, 0.5): five standard deviations are 50.
    assert np.abs(kept - 200).max() < 50
    assert by_chance(0, ids).tolist() != by_chance(1, ids).tolist()


def test_infinite_scores_are_ordered_and_nan_is_refused():
    ids = np.array([4, 7, 9, 11])
    scores = np.array([np.inf, 1.0, -np.inf, np.inf])
    assert ids[by_difficulty(scores, ids)].tolist() == [9, 7, 4, 11]
    assert ids[by_difficulty(scores, ids, hardest_first=True)].tolist() == [4, 11, 7, 9]
    scores[1] = np.nan
    with pytest.raises(ValueError, match=r"NaN for 1 samples, ids 7"):
        by_difficulty(scores, ids)


@given(samples(), st.floats(0, 0.6), st.floats(0.1, 0.4))
def test_window_holds_the_quantiles_between(drawn, low, width):
    labels, ids, scores = drawn
    high = low + width
    order = [i for _, i in sorted(zip(scores.tolist(), ids.tolist(), strict=True))]
    n = len(order)
    expected = order[math.floor(n * low + 0.5) : math.floor(n * high + 0.5)]
    if not expected:
        with pytest.raises(ValueError, match=r"widen"):
            rank("window", labels, ids, scores, low=low, high=high)
        return
    assert sorted(rank("window", labels, ids, scores, low=low, high=high).tolist()) == sorted(expected)


def ccs_budgets_by_loops(sizes, count):
    """The authors' allotment: the smallest stratum first, each at most an equal part of what is left."""
    budgets = dict.fromkeys(range(len(sizes)), 0)
    rest = count
    for done, k in enumerate(sorted(range(len(sizes)), key=lambda k: sizes[k])):
        budgets[k] = min(sizes[k], rest // (len(sizes) - done))
        rest -= budgets[k]
    return [budgets[k] for k in range(len(sizes))]


@given(samples(), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([1, 4, 50]), st.floats(0.05, 1))
def test_ccs_drops_the_hardest_and_fills_the_strata_evenly(drawn, beta, strata, part):
    labels, ids, scores = drawn
    ranking = rank("ccs", labels, ids, scores, beta=beta, strata=strata)
    order = sorted(zip(scores.tolist(), ids.tolist(), strict=True))
    left = order[: len(order) - int(len(order) * beta)]
    assert sorted(ranking.tolist()) == sorted(i for _, i in left)
    low, high = left[0][0], left[-1][0]
    width = (high - low) / strata
    stratum_of = {i: min(strata - 1, int((s - low) / width + 1e-9)) if width else strata - 1 for s, i in left}
    count = max(1, int(part * len(left)))
    sizes = np.bincount([stratum_of[i] for _, i in left], minlength=strata)
    taken = np.bincount([stratum_of[i] for i in ranking[:count].tolist()], minlength=strata)
    assert np.abs(taken - np.array(ccs_budgets_by_loops(sizes.tolist(), count))).max() <= 1


def test_strata_take_infinities_at_the_ends():
    values = np.array([-np.inf, 0.0, 0.49, 0.5, 1.0, np.inf])
    assert stratum(values, 2).tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("policy", "balance", "parameters", "message"),
    [
        ("window", "none", {"low": 0.5, "high": 0.5}, "0 <= low < high <= 1"),
        ("window", "none", {"low": -0.1}, "0 <= low < high <= 1"),
        ("ccs", "none", {"beta": 1.0}, "0 <= beta < 1"),
        ("ccs", "none", {"strata": 2.5}, "whole number of strata"),
        ("ccs", "equal", {}, "balances strata of difficulty"),
    ],
)
def test_parameters_out_of_range_are_refused(policy, balance, parameters, message):
    with pytest.raises(ValueError, match=message):
        rank(policy, np.zeros(4, dtype=np.int64), np.arange(4), np.arange(4.0), balance, **parameters)


@given(samples(most=40))
def test_herding_is_the_rule_by_loops(drawn):
    labels, ids, scores = drawn
    found = rank("herding", labels, ids, scores, balance="equal").tolist()
    for c in np.unique(labels):
        own = np.sort(ids[labels == c])
        h = features_of(own).astype(np.float64)
        mean, weight, left = h.mean(axis=0), h.mean(axis=0), list(range(len(own)))
        mine = [i for i in found if i in set(own.tolist())]
        for taken in mine:
            values = h[left] @ weight
            row = left[int(np.flatnonzero(own[left] == taken)[0])]
            assert h[row] @ weight == pytest.approx(values.max(), abs=1e-4)  # float32 products decide near ties
            weight = weight + mean - h[row]
            left.remove(row)
        assert not left


@given(samples(most=40))
def test_k_center_takes_the_farthest(drawn):
    labels, ids, scores = drawn
    found = rank("k_center", labels, ids, scores, balance="equal").tolist()
    for c in np.unique(labels):
        own = np.sort(ids[labels == c])
        h = dict(zip(own.tolist(), features_of(own).astype(np.float64), strict=True))
        mine = [i for i in found if i in h]
        assert sorted(mine) == own.tolist()
        centre = np.mean(list(h.values()), axis=0)
        nearest = min(np.linalg.norm(v - centre) for v in h.values())
        assert np.linalg.norm(h[mine[0]] - centre) == pytest.approx(nearest, abs=1e-6)
        for k in range(1, len(mine)):
            gaps = {i: min(np.linalg.norm(h[i] - h[j]) for j in mine[:k]) for i in mine[k:]}
            assert gaps[mine[k]] == pytest.approx(max(gaps.values()), abs=2e-3)


@given(samples(most=40), st.integers(1, 6), st.sampled_from([0.0, 0.1, 2.0]))
def test_d2_is_its_messages_by_loops(drawn, neighbours, gamma):
    labels, ids, scores = drawn
    found = rank("d2", labels, ids, scores, balance="equal", neighbours=neighbours, gamma=gamma).tolist()
    span = max(scores.max() - scores.min(), 1e-12)
    for c in np.unique(labels):
        own = np.sort(ids[labels == c])
        difficulty = {i: (s - scores.min()) / span for i, s in zip(ids.tolist(), scores.tolist(), strict=True)}
        unit = features_of(own).astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        squares = ((unit[:, None] - unit[None]) ** 2).sum(axis=2)
        np.fill_diagonal(squares, np.inf)
        near = np.argsort(squares, axis=1, kind="stable")[:, : min(neighbours, len(own) - 1)]
        start = np.array([difficulty[i] for i in own.tolist()])
        value = start + np.array([sum(np.exp(-squares[i, j]) * start[j] for j in near[i]) for i in range(len(own))])
        left = set(range(len(own)))
        for taken in (i for i in found if i in set(own.tolist())):
            row = int(np.flatnonzero(own == taken)[0])
            assert value[row] == pytest.approx(max(value[k] for k in left), abs=1e-4)
            left.remove(row)
            for j in near[row]:
                if j in left:
                    value[j] -= np.exp(-gamma * squares[row, j]) * value[row]
        assert not left


def test_beta_draws_by_score_times_density():
    """First draws over many seeds against the weights themselves."""
    rng = np.random.default_rng(0)
    ids, labels = np.arange(20), np.zeros(20, np.int64)
    scores, p_mean = rng.uniform(0.1, 1, 20).astype(np.float32), rng.uniform(0.05, 0.95, 20)
    firsts = [rank("beta", labels, ids, scores, seed=seed, keep=0.3, p_mean=p_mean)[0] for seed in range(4000)]
    anchor = p_mean[np.argsort(-scores)[:10]].mean()
    b = 15 * (1 - anchor) * (1 - 0.7**4)
    weights = scores * p_mean ** (15 - b) * (1 - p_mean) ** (b - 1)
    expected = weights / weights.sum()
    seen = np.bincount(firsts, minlength=20) / len(firsts)
    assert np.abs(seen - expected).max() < 4 * np.sqrt(0.25 / len(firsts))

    def mean_of_kept(keep):
        drawn = [rank("beta", labels, ids, scores, seed=seed, keep=keep, p_mean=p_mean)[:3] for seed in range(99)]
        return p_mean[np.concatenate(drawn)].mean()

    assert mean_of_kept(0.05) > mean_of_kept(0.9)  # the fewer are kept, the easier they are


@pytest.mark.parametrize("policy", ["herding", "k_center", "d2"])
def test_policies_on_features_work_class_by_class(policy):
    with pytest.raises(ValueError, match="works class by class"):
        rank(policy, np.zeros(3, np.int64), np.arange(3), np.ones(3, np.float32), balance="none")


@pytest.mark.parametrize(
    ("policy", "parameters", "message"),
    [
        ("d2", {"neighbours": 0.5}, "whole number of neighbours"),
        ("d2", {"gamma": -1.0}, "gamma >= 0"),
        ("beta", {"c_d": 0.0}, "c_d > 0"),
        ("beta", {"p_mean": np.full(3, 2.0)}, r"p_mean in \[0, 1\]"),
    ],
)
def test_numbers_out_of_range_are_named(policy, parameters, message):
    with pytest.raises(ValueError, match=message):
        rank(policy, np.zeros(3, np.int64), np.arange(3), np.ones(3, np.float32), **parameters)


def test_d2_wants_finite_scores():
    scores = np.array([1.0, np.inf, 2.0], np.float32)
    with pytest.raises(ValueError, match="needs finite ones"):
        rank("d2", np.zeros(3, np.int64), np.arange(3), scores)
