"""Scores against their formulas in float64, and the pass that computes them."""

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunekd.pruning.scores import FEATURE_SCORES, SCORES, Outputs, Scores, as_scores, compute_scores
from prunekd.pruning.scores.features import read_features

NAMES = [name for name, score in SCORES.items() if not score.needs_features]


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


def looking_up(logits, features=None):
    def forward(images):
        numbers = images[:, 0, 0, 0].long() * 256 + images[:, 1, 0, 0].long()
        return torch.as_tensor(logits)[numbers], None if features is None else torch.as_tensor(features)[numbers]

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


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", NAMES)
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
    scores = compute_scores(batches(labels, size, ids), looking_up(logits), NAMES, classes)
    order = np.argsort(ids)
    assert scores.ids.tolist() == ids[order].tolist()
    assert scores.labels.tolist() == labels[order].tolist()
    assert list(scores.columns) == [*NAMES, "teacher_std"]
    np.testing.assert_allclose(
        scores.columns["teacher_std"], np.std(logits.astype(np.float64), axis=1, ddof=1)[order], rtol=1e-5
    )
    for name in NAMES:
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

    reused = compute_scores(reusing(), looking_up(logits), NAMES, 3)
    fresh = compute_scores(batches(labels, 8), looking_up(logits), NAMES, 3)
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
        compute_scores(batches([0] * 10, 4, torch.arange(100, 110)), looking_up(logits), NAMES, 3)


def test_a_broken_teacher_is_found_before_the_end_of_a_long_pass():
    seen = []

    def forward(images):
        seen.append(len(images))
        return torch.full((len(images), 3), torch.nan), None

    with pytest.raises(ValueError, match=r"not finite"):
        compute_scores(batches([0] * 1000, 1), forward, NAMES, 3)
    assert len(seen) < 200


@pytest.mark.parametrize(
    ("labels", "classes", "names", "message"),
    [
        ([0, 1, 2], 4, NAMES, "teacher knows 3 classes, the store has 4"),
        ([0, 1, 3], 3, NAMES, "labels outside the store's classes for ids 2"),
        ([0, -1, 2], 3, NAMES, "labels outside the store's classes for ids 1"),
        ([0, 1, 2], 3, ["el2m"], "did you mean 'el2n'"),
        ([0, 0, 0], 1, NAMES, "at least 2 classes"),
        ([], 3, NAMES, "no sample to score"),
    ],
)
def test_misfits_are_refused(labels, classes, names, message):
    with pytest.raises(ValueError, match=message):
        compute_scores(batches(labels, 2), looking_up(torch.zeros(3, 3)), names, classes)


def test_a_sample_met_twice_is_refused():
    with pytest.raises(ValueError, match=r"scored twice: ids 5"):
        compute_scores(batches([0, 0, 0], 2, [5, 6, 5]), looking_up(torch.zeros(3, 3)), NAMES, 3)


def test_logits_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape"):
        compute_scores(batches([0, 1], 2), lambda images: (torch.zeros(2, 3, 4), None), NAMES, 3)


def test_grand_last_is_the_norm_of_the_last_layers_gradient():
    """Against autograd, sample by sample, weight and bias together."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(7, 5).double()
    features, labels = torch.randn(20, 7).double().relu(), torch.randint(0, 5, (20,))
    expected = []
    for h, y in zip(features, labels, strict=True):
        loss = torch.nn.functional.cross_entropy(layer(h)[None], y[None])
        expected.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, layer.parameters())]).norm())
    outputs = Outputs(logits=layer(features).float().detach(), labels=labels, features=features.float())
    torch.testing.assert_close(SCORES["grand_last"].compute(outputs).double(), torch.stack(expected), rtol=1e-5, atol=0)


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(6, 40), st.integers(1, 9))
def test_scores_of_features_are_their_formulas(seed, classes, count, size):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4)).astype(np.float16)
    labels = rng.integers(classes, size=count)
    ids = rng.choice(1000, size=count, replace=False)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "f.npy"
        forward = looking_up(logits, features.astype(np.float32))
        scores = compute_scores(batches(labels, size, ids), forward, [*SCORES, *FEATURE_SCORES], classes, features=file)
        stored = np.load(file)
        assert sorted(p.name for p in Path(folder).iterdir()) == ["f.npy"]
    order = np.argsort(ids)
    assert stored.tobytes() == features[order].tobytes()
    for k, i in enumerate(order):
        own = features[labels == labels[i]].astype(np.float64)
        h = features[i].astype(np.float64)
        assert scores.columns["prototype"][k] == pytest.approx(np.linalg.norm(h - own.mean(0)), rel=1e-5, abs=1e-6)
        assert scores.columns["moderate"][k] == pytest.approx(
            np.linalg.norm(h - np.median(own, axis=0)), rel=1e-3, abs=1e-3
        )
    assert scores.hard_ends["ssp"] == "high"
    assert ((scores.columns["ssp"] >= -1e-6) & (scores.columns["ssp"] <= 2)).all()


def test_ssp_is_the_distance_to_the_centroid_of_ones_cluster():
    """Three tight directions: each sample's nearest centroid is the mean of its own direction, whatever its label."""
    rng = np.random.default_rng(3)
    directions = np.eye(3, 6)
    cluster = rng.integers(3, size=300)
    features = (directions[cluster] + 0.05 * rng.normal(size=(300, 6))) * rng.uniform(1, 5, size=(300, 1))
    features = features.astype(np.float16)
    labels = rng.integers(3, size=300)
    found = FEATURE_SCORES["ssp"].compute(features, labels, 3, 0)
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    centres = np.stack([unit[cluster == c].mean(0) for c in range(3)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    expected = 1 - (unit * centres[cluster]).sum(1)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.corrcoef(found, expected)[0, 1] > 0.99
    np.testing.assert_array_equal(found, FEATURE_SCORES["ssp"].compute(features, labels, 3, 0))
    with pytest.raises(ValueError, match="3 clusters, one per class, of only 2 samples"):
        FEATURE_SCORES["ssp"].compute(features[:2], labels[:2], 3, 0)


def test_shards_of_a_pass_make_the_whole(tmp_path):
    """Two processes, played by two threads that meet in `gather`."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(11, 3)).astype(np.float32), rng.integers(3, size=11)
    logits, names = rng.normal(size=(11, 3)).astype(np.float32), [*SCORES, "prototype", "moderate"]
    forward = looking_up(logits, features)
    alone = compute_scores(batches(labels, 4), forward, names, 3, features=tmp_path / "alone.npy")
    meeting, slots = threading.Barrier(2), [None, None]

    def gather_of(rank):
        def gather(values):
            slots[rank] = values
            meeting.wait(30)
            found = list(slots)
            meeting.wait(30)
            return found

        return gather

    def share(rank):
        mine = list(batches(labels, 1))[rank::2]
        return compute_scores(
            mine, forward, names, 3, features=tmp_path / "both.npy", rank=rank, gather=gather_of(rank)
        )

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(share, [0, 1]))
    for scores in both:
        assert scores.ids.tolist() == alone.ids.tolist()
        for name in alone.columns:
            np.testing.assert_allclose(scores.columns[name], alone.columns[name], rtol=1e-6, err_msg=name)
    assert (tmp_path / "both.npy").read_bytes() == (tmp_path / "alone.npy").read_bytes()


def test_features_too_large_for_float16_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do not fit float16"):
        compute_scores(
            batches([0, 1], 2), looking_up(torch.zeros(2, 3), torch.full((2, 3), 1e6)), ["prototype"], 3,
            features=tmp_path / "f.npy",
        )  # fmt: skip


def test_features_that_are_not_there_are_asked_for_in_vain(tmp_path):
    logits = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="the score prototype looks at all samples' features; name a file"):
        compute_scores(batches([0, 1], 2), looking_up(logits, torch.zeros(2, 3)), ["prototype"], 3)
    for names, features, asks in ((["grand_last"], None, "grand_last"), (["el2n"], tmp_path / "f.npy", "features")):
        with pytest.raises(ValueError, match=f"the teacher gives no features, and {asks} asks for them"):
            compute_scores(batches([0, 1], 2), lambda images: (logits, None), names, 3, features=features)


def test_a_features_file_of_something_else_is_refused(tmp_path):
    np.save(tmp_path / "f.npy", np.zeros((4, 3), np.float16))
    assert read_features(tmp_path / "f.npy", 4).shape == (4, 3)
    with pytest.raises(ValueError, match="not one row for each of the 5 samples"):
        read_features(tmp_path / "f.npy", 5)
    (tmp_path / "g.npy").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"g\.npy cannot be read as a NumPy array"):
        read_features(tmp_path / "g.npy", 4)


def a_table(names=("el2n", "margin"), count=5):
    rng = np.random.default_rng(1)
    return Scores(
        ids=np.array([2, 3, 7, 11, 20])[:count],
        labels=np.array([0, 1, 1, 0, 1])[:count],
        columns={name: rng.random(count).astype(np.float32) for name in (*names, "teacher_std")},
        definitions={name: f"{name}@1" for name in (*names, "teacher_std")},
        hard_ends={"el2n": "high", "margin": "low"},
        class_std=np.array([1.5, np.nan]),
        provenance={"split": "train", "fingerprint": "f" * 64, "store": {"path": "/here", "classes": 2}},
    )


def test_a_column_is_taken_by_its_name():
    scores = a_table()
    for name in ("el2n", "margin", "teacher_std"):
        assert scores[name].dtype == np.float32
        assert scores[name].tolist() == scores.columns[name].tolist()
    with pytest.raises(ValueError, match=r"unknown score 'el2m' .did you mean 'el2n'"):
        scores["el2m"]


@given(st.lists(st.sampled_from([2, 3, 7, 11, 20]), max_size=8))
def test_values_are_looked_up_by_id(ids):
    scores = a_table()
    known = dict(zip(scores.ids.tolist(), scores["margin"].tolist(), strict=True))
    assert scores.values("margin", np.array(ids, np.int64)).tolist() == [known[i] for i in ids]
    assert scores.difficulty("margin", np.array(ids, np.int64)).tolist() == [-known[i] for i in ids]
    with pytest.raises(ValueError, match=r"no score for 2 samples, ids 5, 21;"):
        scores.values("margin", np.array([*ids, 5, 21]))


def test_a_table_has_a_column_per_score():
    scores = a_table()
    table = scores.to_table()
    assert table.column_names == ["id", "label", "el2n", "margin", "teacher_std"]
    assert [str(field.type) for field in table.schema] == ["int64", "int64", "float", "float", "float"]
    rows = [
        {"id": i, "label": y, **{name: float(scores.columns[name][k]) for name in scores.columns}}
        for k, (i, y) in enumerate(zip(scores.ids.tolist(), scores.labels.tolist(), strict=True))
    ]
    assert table.to_pylist() == rows


def test_scores_are_taken_as_object_or_file(tmp_path):
    scores = a_table()
    scores.save(str(tmp_path / "new" / "s.parquet"))
    assert as_scores(scores) is scores
    for path in (tmp_path / "new" / "s.parquet", str(tmp_path / "new" / "s.parquet")):
        again = as_scores(path)
        assert again.to_table().equals(scores.to_table())
        assert (again.definitions, again.hard_ends) == (scores.definitions, scores.hard_ends)
        assert again.provenance == scores.provenance
        np.testing.assert_array_equal(again.class_std, scores.class_std)
    with pytest.raises(ValueError, match=r"gone\.parquet does not exist"):
        as_scores(tmp_path / "gone.parquet")
