"""DKD, DIST and logit standardisation against NumPy float64 loops written from the papers' formulas."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunekd.distill import OBJECTIVES, ObjectiveSettings, SoftLabels, create_objective
from prunekd_kernels import kd_loss

WITH_TEACHER = ("kd", "dkd", "dist", "standardize")


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


def cross_entropy(z: np.ndarray, y: int, smoothing: float) -> float:
    target = np.full(len(z), smoothing / len(z))
    target[y] += 1 - smoothing
    return float(-(target * np.log(softmax(z))).sum())


def dkd_term(zs: np.ndarray, zt: np.ndarray, y: int, t: float, target: float, nontarget: float) -> float:
    """Zhao et al. 2022: binary probabilities of the target, and probabilities among the others alone."""
    ps, pt = softmax(zs / t), softmax(zt / t)
    others = [k for k in range(len(zs)) if k != y]
    binary_s, binary_t = np.array([ps[y], ps[others].sum()]), np.array([pt[y], pt[others].sum()])
    nckd = kl(softmax(zt[others] / t), softmax(zs[others] / t))
    return t * t * (target * kl(binary_t, binary_s) + nontarget * nckd)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def dist_loss(zs: np.ndarray, zt: np.ndarray, t: float, inter: float, intra: float) -> float:
    """Huang et al. 2022, of a whole batch."""
    ys, yt = (np.array([softmax(row / t) for row in z]) for z in (zs, zt))
    rows = np.mean([1 - pearson(a, b) for a, b in zip(ys, yt, strict=True)])
    columns = np.mean([1 - pearson(a, b) for a, b in zip(ys.T, yt.T, strict=True)])
    return float(t * t * (inter * rows + intra * columns))


def standardize_term(zs: np.ndarray, zt: np.ndarray, t: float) -> float:
    """Sun et al. 2024."""
    zs, zt = ((z - z.mean()) / (1e-7 + z.std(ddof=1)) for z in (zs, zt))
    return t * t * kl(softmax(zt / t), softmax(zs / t))


def draw(batch: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        3 * rng.normal(size=(batch, classes)),
        3 * rng.normal(size=(batch, classes)),
        rng.integers(classes, size=batch),
        rng.uniform(0.5, 2, size=batch),
    )


sizes = given(
    batch=st.integers(2, 7),
    classes=st.integers(2, 19),
    alpha=st.floats(0, 1),
    temperature=st.floats(0.7, 6),
    smoothing=st.floats(0, 0.5),
    first=st.floats(0, 3),
    second=st.floats(0, 9),
    seed=st.integers(0, 2**31),
)


@settings(max_examples=40, deadline=None)
@sizes
def test_dkd_is_the_papers(
    batch: int, classes: int, alpha: float, temperature: float, smoothing: float, first: float, second: float, seed: int
) -> None:
    zs, zt, labels, weights = draw(batch, classes, seed)
    spec = ObjectiveSettings(alpha=alpha, temperature=temperature, label_smoothing=smoothing)
    objective = create_objective("dkd", spec, options={"target": first, "nontarget": second})
    got = objective(*map(torch.from_numpy, (zs, zt, labels, weights)))
    expected = [
        w * ((1 - alpha) * cross_entropy(s, y, smoothing) + alpha * dkd_term(s, t, y, temperature, first, second))
        for s, t, y, w in zip(zs, zt, labels, weights, strict=True)
    ]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@sizes
def test_standardize_is_the_papers_and_blind_to_scale_and_shift(
    batch: int, classes: int, alpha: float, temperature: float, smoothing: float, first: float, second: float, seed: int
) -> None:
    zs, zt, labels, weights = draw(batch, classes, seed)
    assume(min(zs.std(1).min(), zt.std(1).min()) > 1e-2)  # rows that are nearly constant have a test of their own
    spec = ObjectiveSettings(alpha=alpha, temperature=temperature, label_smoothing=smoothing)
    objective = create_objective("standardize", spec)
    got = objective(*map(torch.from_numpy, (zs, zt, labels, weights)))
    expected = [
        w * ((1 - alpha) * cross_entropy(s, y, smoothing) + alpha * standardize_term(s, t, temperature))
        for s, t, y, w in zip(zs, zt, labels, weights, strict=True)
    ]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6, atol=1e-7)
    moved = objective(*map(torch.from_numpy, (zs, zt * (1 + first) + second, labels, weights)))
    np.testing.assert_allclose(moved.numpy(), got.numpy(), rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@sizes
def test_the_mean_of_dist_is_the_papers_batch_loss(
    batch: int, classes: int, alpha: float, temperature: float, smoothing: float, first: float, second: float, seed: int
) -> None:
    zs, zt, labels, _ = draw(batch, classes, seed)
    assume(min(zs.std(1).min(), zt.std(1).min(), zs.std(0).min(), zt.std(0).min()) > 1e-2)
    spec = ObjectiveSettings(alpha=alpha, temperature=temperature, label_smoothing=smoothing)
    objective = create_objective("dist", spec, options={"inter": first, "intra": second})
    got = objective(*map(torch.from_numpy, (zs, zt, labels)), None)
    hard = np.mean([cross_entropy(s, y, smoothing) for s, y in zip(zs, labels, strict=True)])
    expected = (1 - alpha) * hard + alpha * dist_loss(zs, zt, temperature, first, second)
    assert got.shape == (batch,)
    assert float(got.mean()) == pytest.approx(expected, rel=1e-7, abs=1e-7)


@settings(max_examples=20, deadline=None)
@given(times=st.lists(st.integers(1, 4), min_size=2, max_size=6), seed=st.integers(0, 2**31))
def test_a_whole_weight_in_dist_counts_like_a_sample_met_as_often(times: list[int], seed: int) -> None:
    zs, zt, labels, _ = (torch.from_numpy(a) for a in draw(len(times), 7, seed))
    objective = create_objective("dist", ObjectiveSettings(alpha=0.7, temperature=2.0))
    weights = torch.tensor(times, dtype=torch.float64)
    weighted = objective(zs, zt, labels, weights)
    repeated = objective(*(a.repeat_interleave(weights.long(), 0) for a in (zs, zt, labels)), None)
    torch.testing.assert_close(weighted.sum(), repeated.sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", WITH_TEACHER)
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_are_those_of_the_loss(name: str, soft: bool) -> None:
    zs, zt, labels, weights = (torch.from_numpy(a) for a in draw(4, 5, 3))
    targets = torch.softmax(zt.flip(0), 1) if soft else labels
    objective = create_objective(name, ObjectiveSettings(alpha=0.6, temperature=2.5, label_smoothing=0.1))
    teacher = zt.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(z, teacher, targets, weights), zs.requires_grad_())
    objective(zs, teacher, targets, weights).sum().backward()
    assert teacher.grad is None


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("soft", [False, True])
def test_stats_come_beside_the_same_loss(name: str, soft: bool) -> None:
    zs, zt, labels, weights = (torch.from_numpy(a) for a in draw(6, 5, 4))
    zs, zt, weights = zs.float(), zt.float(), weights.float()
    targets = torch.softmax(zt.flip(0), 1) if soft else labels
    scale = torch.full((5,), 1.5) if name == "reshape" else None
    objective = create_objective(name, ObjectiveSettings(alpha=0.6, temperature=2.0), scale)
    plain = objective(zs, zt, targets, weights)
    loss, stats = objective(zs, zt, targets, weights, stats=True)
    torch.testing.assert_close(loss, plain)
    q = targets if soft else torch.nn.functional.one_hot(labels, 5).float()
    y, p = q.argmax(1), torch.softmax(zs, 1)
    rows = torch.arange(6)
    torch.testing.assert_close(stats.p_y, p[rows, y])
    torch.testing.assert_close(stats.el2n, (p - q).norm(dim=1))
    assert stats.correct.tolist() == (zs.argmax(1) == y).tolist()
    others = zs.clone()
    others[rows, y] = -np.inf
    torch.testing.assert_close(stats.margin, zs[rows, y] - others.amax(1))


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_soft_labels_enter_the_labels_term(name: str) -> None:
    """At alpha = 0 the loss is cross-entropy with the mixed label; one-hot soft labels give what hard ones give."""
    zs, zt, labels, _ = (torch.from_numpy(a) for a in draw(5, 6, 5))
    mixed = torch.lerp(*(torch.nn.functional.one_hot(y, 6).double() for y in (labels, labels.flip(0))), 0.3)
    label_term = create_objective(name, ObjectiveSettings(alpha=0.0))(zs, zt, mixed, None)
    torch.testing.assert_close(label_term, -(mixed * torch.log_softmax(zs, 1)).sum(1))
    both = create_objective(name, ObjectiveSettings(alpha=0.5, temperature=2.0))
    hard = torch.nn.functional.one_hot(labels, 6).double()
    torch.testing.assert_close(both(zs, zt, hard, None), both(zs, zt, labels, None))


def test_dkd_with_the_teachers_own_weights_is_kd_whatever_the_label() -> None:
    """Equation 7 of the paper: KD = TCKD + (1 - p_y) NCKD."""
    zs, zt, _, _ = (torch.from_numpy(a) for a in draw(1, 8, 6))
    spec = ObjectiveSettings(alpha=1.0, temperature=3.0)
    for y in range(8):
        labels = torch.tensor([y])
        nontarget = float(1 - torch.softmax(zt / 3, 1)[0, y])
        dkd = create_objective("dkd", spec, options={"target": 1.0, "nontarget": nontarget})
        kd = create_objective("kd", spec)
        torch.testing.assert_close(dkd(zs, zt, labels, None), kd(zs, zt, labels, None))


@pytest.mark.parametrize("name", WITH_TEACHER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_and_constant_logits_give_finite_losses_and_gradients(name: str, dtype: torch.dtype) -> None:
    rows = [[40.0, -40.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-30.0, 60.0, 30.0, -60.0], [2.0, 2.0, 2.0, 2.0]]
    objective = create_objective(name, ObjectiveSettings(alpha=0.5))
    for order in itertools.islice(itertools.permutations(rows), 0, 24, 5):
        student = torch.tensor(rows, dtype=dtype).requires_grad_()
        loss = objective(student, torch.tensor(order, dtype=dtype), torch.tensor([0, 1, 2, 3]), None)
        assert loss.dtype == torch.float32
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert student.grad is not None
        assert torch.isfinite(student.grad).all()


def test_one_sample_alone_has_no_relation_between_samples() -> None:
    zs, zt, labels, _ = (torch.from_numpy(a) for a in draw(1, 8, 7))
    objective = create_objective("dist", ObjectiveSettings(alpha=1.0), options={"inter": 0.0, "intra": 1.0})
    student = zs.requires_grad_()
    loss = objective(student, zt, labels, None)
    loss.sum().backward()
    assert loss.item() == 1.0
    assert student.grad is not None
    assert not student.grad.any()


def soft_labels(teacher: Tensor, k: int | None, temperature: float) -> SoftLabels:
    if k is None:
        return SoftLabels(logits=teacher)
    values, ids = teacher.topk(k, dim=1)
    logsumexp = torch.logsumexp(teacher / temperature, 1)
    return SoftLabels(
        logits=values, ids=ids.int(), std=teacher.std(1), logsumexp=logsumexp, temperature=temperature
    )  # fmt: skip


@pytest.mark.parametrize("residual", ["renormalize", "spread"])
@pytest.mark.parametrize("k", [2, 6, None])
def test_kd_takes_cached_soft_labels(residual: str, k: int | None) -> None:
    zs, zt, labels, weights = (torch.from_numpy(a) for a in draw(5, 6, 8))
    spec = ObjectiveSettings(alpha=0.8, temperature=2.0, label_smoothing=0.1)
    got = create_objective("kd", spec, options={"residual": residual})(zs, soft_labels(zt, k, 2.0), labels, weights)
    p = torch.softmax(zt / 2, 1)
    if k is not None:
        top = torch.zeros_like(p).scatter(1, zt.topk(k, 1).indices, 1.0)
        kept = p * top
        rest = 1 - kept.sum(1, keepdim=True)
        p = kept / (1 - rest) if residual == "renormalize" else kept + (1 - top) * rest / max(6 - k, 1)
    entropy = torch.special.xlogy(p, p).sum(1)
    divergence = entropy - (p * torch.log_softmax(zs / 2, 1)).sum(1)
    hard = kd_loss(zs, None, labels, alpha=0.0, temperature=1.0, label_smoothing=0.1)
    torch.testing.assert_close(got, weights * (0.2 * hard + 0.8 * 4 * divergence), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["dkd", "dist", "standardize", "reshape"])
def test_full_soft_labels_are_the_logits_and_the_top_k_will_not_do(name: str) -> None:
    zs, zt, labels, _ = (torch.from_numpy(a) for a in draw(5, 6, 9))
    scale = torch.linspace(1, 2, 6, dtype=torch.float64) if name == "reshape" else None
    objective = create_objective(name, ObjectiveSettings(alpha=0.8, temperature=2.0), scale)
    whole = objective(zs, zt, labels, None)
    torch.testing.assert_close(objective(zs, soft_labels(zt, None, 1.0), labels, None), whole)
    if name == "reshape":  # with all K = C and the std beside them nothing is lost
        torch.testing.assert_close(objective(zs, soft_labels(zt, 6, 1.0), labels, None), whole)
        return
    assert not objective.takes_topk
    with pytest.raises(ValueError, match="soft labels hold the top 3; make them with `prunekd labels --topk full`"):
        objective(zs, soft_labels(zt, 3, 1.0), labels, None)


def test_the_mass_outside_the_top_k_is_known_at_one_temperature() -> None:
    zs, zt, labels, _ = (torch.from_numpy(a) for a in draw(5, 6, 10))
    objective = create_objective("kd", ObjectiveSettings(temperature=4.0), options={"residual": "spread"})
    with pytest.raises(ValueError, match="at temperature 1, the objective's is 4"):
        objective(zs, soft_labels(zt, 3, 1.0), labels, None)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "dkd",
            {"non_target": 1.0},
            "unknown option of the objective Decoupled 'non_target' .did you mean 'nontarget'",
        ),
        ("dkd", {"target": -1.0}, "target is -1.0; it is a weight"),
        ("dist", {"inter": float("nan")}, "inter is nan"),
        ("dist", {"intra": True}, "intra is True"),
        ("hard", {"target": 1.0}, "HardLabels has no options"),
        ("kd", {"residual": "drop"}, "residual is 'drop'; it must be renormalize or spread"),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_objective(name, ObjectiveSettings(), options=options)


def test_class_statistics_are_asked_for_and_refused_where_they_mean_nothing() -> None:
    with pytest.raises(ValueError, match=r"reshape needs the teacher's class statistics.*--reshape SCORES"):
        create_objective("reshape", ObjectiveSettings())
    scale = torch.ones(3)
    for name in ("hard", "dkd", "dist", "standardize"):
        with pytest.raises(ValueError, match="does not reshape"):
            create_objective(name, ObjectiveSettings(), scale)
    with pytest.raises(ValueError, match="residual spread cannot be had together with reshaped logits"):
        create_objective("reshape", ObjectiveSettings(), scale, {"residual": "spread"})
