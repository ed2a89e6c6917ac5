"""Scores against their formulas in float64, and the pass that computes them."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunekd.pruning.scores import SCORES, Outputs, compute_scores


class FakeBatch(NamedTuple):
    """A batch whose images carry the sample's number, so that `forward` can look its logits up."""

    images: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor
    weights: None = None


def batches(labels, size, ids=None):
    count = len(labels)
    ids = torch.arange(count) if ids is None else torch.as_tensor(ids)
    numbers = torch.arange(count)
    images = torch.stack([numbers // 256, numbers % 256, numbers * 0], dim=1).to(torch.uint8)[:, :, None, None]
    for start in range(0, count, size):
        part = slice(start, start + size)
        yield FakeBatch(images[part], torch.as_tensor(labels)[part], ids[part])


def looking_up(logits):
    def forward(images):
        return torch.as_tensor(logits)[images[:, 0, 0, 0].long() * 256 + images[:, 1, 0, 0].long()]

    return forward


def softmax(z):
    z = z - z.max()
    return np.exp(z) / np.exp(z).sum()


def in_longdouble(name, z, y):
    """The formula of one sample, in extended precision so that 1 - p keeps its digits."""
    z = z.astype(np.longdouble)
    p = softmax(z)
    q = np.zeros_like(p)
    q[y] = 1
    others = np.delete(np.arange(len(z)), y)
    rest = np.delete(p, p.argmax())
    return {
        "teacher_ce": -(z[y] - z.max() - np.log(np.exp(z - z.max()).sum())),
        "el2n": np.sqrt(((p - q) ** 2).sum()),
        "margin": z[y] - z[others].max(),
        "entropy": -sum(v * np.log(v) for v in p if v > 0),
        "least_confidence": rest.sum(),
    }[name]


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize("classes", [2, 3, 100])
def test_score_is_its_formula(name, scale, classes):
    rng = np.random.default_rng(classes)
    logits = (scale * rng.normal(size=(50, classes))).astype(np.float32)
    labels = rng.integers(classes, size=50)
    outputs = Outputs(logits=torch.tensor(logits), labels=torch.tensor(labels))
    values = SCORES[name].compute(outputs)
    assert values.dtype == torch.float32
    expected = [float(in_longdouble(name, z, y)) for z, y in zip(logits, labels, strict=True)]
    # Margins of close logits lose the digits that the subtraction cancels.
    np.testing.assert_allclose(values.numpy(), expected, rtol=3e-5, atol=1e-6 * scale if name == "margin" else 1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_score_is_finite_and_ordered_for_huge_logits(name):
    logits = torch.tensor([[1e30, -1e30, 0.0], [-1e30, 1e30, 0.0], [1e4, 1e4 - 1, -1e4], [0.0, 0.0, 0.0]])
    values = SCORES[name].compute(Outputs(logits=logits, labels=torch.tensor([0, 0, 0, 0])))
    assert torch.isfinite(values).all()
    sure, wrong, close, _ = values.tolist()
    if name in ("teacher_ce", "el2n"):
        assert sure == 0 < close < wrong
    elif name == "margin":
        assert sure > close > wrong
    else:
        assert sure == wrong == 0 < close


def test_the_easiest_samples_do_not_tie():
    gaps = torch.tensor([17.0, 20.0, 25.0, 40.0, 80.0])
    logits = torch.stack([gaps, torch.zeros(5)], dim=1)
    outputs = Outputs(logits=logits, labels=torch.zeros(5, dtype=torch.int64))
    for name in ("teacher_ce", "el2n", "entropy", "least_confidence"):
        values = SCORES[name].compute(outputs).tolist()
        assert values == sorted(set(values), reverse=True)
        assert values[3] == pytest.approx(float(in_longdouble(name, logits[3].double().numpy(), 0)), rel=1e-4)


@given(st.integers(1, 40), st.integers(2, 6), st.integers(1, 50), st.integers(0, 1000))
def test_the_pass_gathers_every_sample_whatever_the_batches(count, classes, size, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    labels = rng.integers(classes, size=count)
    ids = rng.choice(1000, size=count, replace=False)
    scores = compute_scores(batches(labels, size, ids), looking_up(logits), list(SCORES), classes)
    order = np.argsort(ids)
    assert scores.ids.tolist() == ids[order].tolist()
    assert scores.labels.tolist() == labels[order].tolist()
    assert list(scores.columns) == [*SCORES, "teacher_std"]
    np.testing.assert_allclose(
        scores.columns["teacher_std"], np.std(logits.astype(np.float64), axis=1, ddof=1)[order], rtol=1e-5
    )
    for name in SCORES:
        expected = [float(in_longdouble(name, logits[i], labels[i])) for i in order]
        np.testing.assert_allclose(scores.columns[name], expected, rtol=3e-5, atol=1e-6)
    for c in range(classes):
        stds = [np.std(z.astype(np.float64), ddof=1) for z, y in zip(logits, labels, strict=True) if y == c]
        if stds:
            assert scores.class_std[c] == pytest.approx(np.mean(stds), rel=1e-5)
        else:
            assert np.isnan(scores.class_std[c])


def test_reused_batch_buffers_do_no_harm():
    logits = torch.randn(8, 3)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])

    def reusing():
        whole = list(batches(labels, 2))
        buffer = FakeBatch(*(t.clone() for t in whole[0][:3]))
        for batch in whole:
            for mine, theirs in zip(buffer[:3], batch[:3], strict=True):
                mine.copy_(theirs)
            yield buffer

    reused = compute_scores(reusing(), looking_up(logits), list(SCORES), 3)
    fresh = compute_scores(batches(labels, 8), looking_up(logits), list(SCORES), 3)
    assert reused.ids.tolist() == fresh.ids.tolist()
    for name, values in fresh.columns.items():
        np.testing.assert_allclose(reused.columns[name], values, rtol=1e-6)


def test_half_precision_logits_are_scored_in_float32():
    logits = torch.randn(6, 4).half()
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    half = compute_scores(batches(labels, 3), looking_up(logits), ["teacher_ce"], 4)
    full = compute_scores(batches(labels, 3), looking_up(logits.float()), ["teacher_ce"], 4)
    assert half.columns["teacher_ce"].tolist() == full.columns["teacher_ce"].tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_teacher_is_named_with_its_samples(bad):
    logits = torch.zeros(10, 3)
    logits[4, 1] = bad
    logits[7, 0] = bad
    with pytest.raises(ValueError, match=r"broken.*not finite for 2 samples, ids 104, 107"):
        compute_scores(batches([0] * 10, 4, torch.arange(100, 110)), looking_up(logits), list(SCORES), 3)


def test_a_broken_teacher_is_found_before_the_end_of_a_long_pass():
    seen = []

    def forward(images):
        seen.append(len(images))
        return torch.full((len(images), 3), torch.nan)

    with pytest.raises(ValueError, match=r"not finite"):
        compute_scores(batches([0] * 1000, 1), forward, list(SCORES), 3)
    assert len(seen) < 200


@pytest.mark.parametrize(
    ("labels", "classes", "names", "message"),
    [
        ([0, 1, 2], 4, list(SCORES), "teacher knows 3 classes, the store has 4"),
        ([0, 1, 3], 3, list(SCORES), "labels outside the store's classes for ids 2"),
        ([0, -1, 2], 3, list(SCORES), "labels outside the store's classes for ids 1"),
        ([0, 1, 2], 3, ["el2m"], "did you mean 'el2n'"),
        ([0, 0, 0], 1, list(SCORES), "at least 2 classes"),
        ([], 3, list(SCORES), "no sample to score"),
    ],
)
def test_misfits_are_refused(labels, classes, names, message):
    with pytest.raises(ValueError, match=message):
        compute_scores(batches(labels, 2), looking_up(torch.zeros(3, 3)), names, classes)


def test_a_sample_met_twice_is_refused():
    with pytest.raises(ValueError, match=r"scored twice: ids 5"):
        compute_scores(batches([0, 0, 0], 2, [5, 6, 5]), looking_up(torch.zeros(3, 3)), list(SCORES), 3)


def test_logits_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape"):
        compute_scores(batches([0, 1], 2), lambda images: torch.zeros(2, 3, 4), list(SCORES), 3)
