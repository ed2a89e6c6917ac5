"""Training dynamics against a replay of all outputs in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunekd.pruning.scores import read_scores, write_scores
from prunekd.pruning.training_dynamics import DYNAMICS, Tracker, tracked_scores
from prunekd_kernels import KDStats, kd_loss

CPU = torch.device("cpu")
ALL = tuple(DYNAMICS)


def presentations(seed: int, epochs: int, count: int, classes: int, shown: float) -> tuple[np.ndarray, ...]:
    """Logits (epochs, count, classes) that drift towards the label, labels, and who is presented when."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(0, 1.5, (epochs, count, classes)).astype(np.float32)
    logits[:, np.arange(count), labels] += np.linspace(-1, 4, epochs)[:, None] * rng.random(count)
    return logits, labels, rng.random((epochs, count)) < shown


def track(tracker: Tracker, logits: np.ndarray, labels: np.ndarray, present: np.ndarray, epochs: range) -> None:
    """Present samples to a tracker epoch by epoch, in shuffled batches of 7."""
    for epoch in epochs:
        order = np.random.default_rng(epoch).permutation(np.flatnonzero(present[epoch]))
        for start in range(0, len(order), 7):
            rows = order[start : start + 7]
            student = torch.from_numpy(logits[epoch, rows])
            _, stats = kd_loss(student, None, torch.from_numpy(labels[rows]), alpha=0.0, temperature=1.0, stats=True)
            tracker.update(torch.from_numpy(rows), stats)


def replay(logits: np.ndarray, labels: np.ndarray, present: np.ndarray, window: int) -> dict[str, np.ndarray]:
    """The definitions, sample by sample, from everything there was."""
    found: dict[str, list[float]] = {name: [] for name in ALL}
    for i, y in enumerate(labels):
        z = logits[present[:, i], i].astype(np.float64)
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        right = z.argmax(1) == y
        events = sum(right[t - 1] and not right[t] for t in range(1, len(z)))
        found["forgetting"].append(np.nan if not len(z) else events if right.any() else np.inf)
        others = np.delete(z, y, axis=1).max(1)
        found["aum"].append((z[:, y] - others).mean() if len(z) else np.nan)
        found["p_mean"].append(p[:, y].mean() if len(z) else np.nan)
        error = p.copy()
        error[:, y] -= 1
        found["el2n_early"].append(np.linalg.norm(error, axis=1)[:10].mean() if len(z) else np.nan)
        spans = [p[k : k + window, y] for k in range(len(z) - window + 1)]
        found["dyn_unc"].append(np.mean([np.std(s, ddof=1) for s in spans]) if spans else np.nan)
        found["dual"].append(np.mean([np.std(s, ddof=1) * (1 - s.mean()) for s in spans]) if spans else np.nan)
        average = np.nan
        for s in spans:
            d = s[1:] * np.abs(np.log(s[1:]) - np.log(s[:-1]))
            depth = np.sqrt(((d - d.mean()) ** 2).sum())
            average = depth if np.isnan(average) else 0.9 * depth + 0.1 * average
        found["tdds"].append(average)
    return {name: np.array(values) for name, values in found.items()}


TOLERANCES = {
    "forgetting": 0.0,
    "aum": 1e-4,
    "el2n_early": 1e-5,
    "p_mean": 1e-6,
    "dyn_unc": 1e-3,
    "dual": 1e-3,
    "tdds": 4e-3,
}


@given(
    seed=st.integers(0, 2**32),
    epochs=st.integers(2, 25),
    classes=st.integers(2, 6),
    shown=st.sampled_from([1.0, 0.7, 0.3]),
)
def test_every_score_is_its_definition(seed: int, epochs: int, classes: int, shown: float) -> None:
    logits, labels, present = presentations(seed, epochs, 20, classes, shown)
    tracker = Tracker(ALL, 20, epochs, CPU)
    with np.errstate(all="ignore"):
        expected = replay(logits, labels, present, min(10, epochs))
    track(tracker, logits, labels, present, range(epochs))
    found = tracker.scores()
    assert set(found) == set(ALL)
    for name in ALL:
        np.testing.assert_allclose(found[name], expected[name], atol=TOLERANCES[name], rtol=1e-3, err_msg=name)


def test_forty_bytes_per_sample_for_everything() -> None:
    six = [name for name in ALL if name != "p_mean"]
    tracker = Tracker(six, 1000, 200, CPU)
    assert len(six) == 6
    assert sum(t.numel() * t.element_size() for t in tracker.state_dict().values()) <= 40 * 1000
    few = Tracker(["forgetting"], 1000, 200, CPU)
    assert sum(t.numel() * t.element_size() for t in few.state_dict().values()) == 4 * 1000


def test_a_resumed_tracker_goes_on() -> None:
    logits, labels, present = presentations(1, 14, 30, 4, 0.8)
    whole = Tracker(ALL, 30, 14, CPU)
    track(whole, logits, labels, present, range(14))
    first = Tracker(ALL, 30, 14, CPU)
    track(first, logits, labels, present, range(6))
    second = Tracker(ALL, 30, 14, CPU)
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    track(second, logits, labels, present, range(6, 14))
    for name, values in whole.scores().items():
        np.testing.assert_array_equal(second.scores()[name], values, err_msg=name)


def test_certain_predictions_stay_finite() -> None:
    tracker = Tracker(ALL, 2, 4, CPU)
    for p in (1.0, 0.0, 1.0, 0.0):
        ones = torch.ones(2)
        tracker.update(torch.arange(2), KDStats(ones > 0, p * ones, ones, ones))
    assert all(np.isfinite(values).all() for values in tracker.scores().values())


def test_scores_of_a_run_are_a_scores_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    logits, labels, present = presentations(2, 12, 30, 4, 1.0)
    tracker = Tracker(["aum", "dual"], 30, 12, CPU)
    track(tracker, logits, labels, present, range(12))
    made = {"split": "train", "fingerprint": "f", "store": {"path": "p", "classes": 4}}
    write_scores(tmp_path / "s.parquet", tracked_scores(tracker, np.arange(30) + 5, labels, 4, made))
    scores = read_scores(tmp_path / "s.parquet")
    assert scores.definitions == {"aum": "aum@1", "dual": "dual@1"}
    np.testing.assert_array_equal(scores.difficulty("aum", np.array([7, 5])), -tracker.scores()["aum"][[2, 0]])
    np.testing.assert_array_equal(scores.difficulty("dual", np.array([7, 5])), tracker.scores()["dual"][[2, 0]])


def test_wrong_names_and_runs_too_short_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown training-dynamics score 'forgeting'.*'forgetting'"):
        Tracker(["forgeting"], 3, 10, CPU)
    with pytest.raises(ValueError, match="dual, tdds look at how predictions change and need at least 2 epochs"):
        Tracker(["aum", "dual", "tdds"], 3, 1, CPU)
