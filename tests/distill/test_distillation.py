"""The public loss module against the formula in plain PyTorch, float64."""

import copy
import doctest
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import prunekd
from distill.caches import cached_teacher
from prunekd import Distillation, Loader
from prunekd.distill import OBJECTIVES, ObjectiveSettings, SoftLabels, create_objective
from prunekd.input import ViewSettings
from prunekd.store import Store


def batch(seed: int = 0, rows: int = 8, classes: int = 10) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of student and teacher, labels and weights."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(2, rows, classes, generator=generator)).unbind()
    labels = torch.randint(classes, (rows,), generator=generator)
    return student.requires_grad_(), teacher, labels, torch.rand(rows, generator=generator) + 0.5


def formula(
    student: Tensor, teacher: Tensor, labels: Tensor, weights: Tensor | None, alpha: float, t: float, smoothing: float
) -> Tensor:
    """Losses (B,), by PyTorch's own cross-entropy and KL."""
    hard = F.cross_entropy(student, labels, label_smoothing=smoothing, reduction="none")
    log_p, log_q = F.log_softmax(student / t, 1), F.log_softmax(teacher / t, 1)
    soft = t**2 * F.kl_div(log_p, log_q, log_target=True, reduction="none").sum(1)
    losses = (1 - alpha) * hard + alpha * soft
    return losses if weights is None else losses * weights


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 9),
    classes=st.integers(2, 40),
    alpha=st.floats(0, 1),
    temperature=st.floats(0.5, 8),
    smoothing=st.floats(0, 0.5),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    weighted=st.booleans(),
    reshaped=st.booleans(),
    exact=st.booleans(),
)
def test_loss_and_gradient_are_the_formulas(
    seed: int, rows: int, classes: int, alpha: float, temperature: float, smoothing: float, reduction: str,
    weighted: bool, reshaped: bool, exact: bool,
) -> None:  # fmt: skip
    student, teacher, labels, some = batch(seed, rows, classes)
    weights = some if weighted else None
    scale = torch.rand(classes, generator=torch.Generator().manual_seed(seed)) + 0.5 if reshaped else None
    loss_fn = Distillation(
        alpha=alpha, temperature=temperature, label_smoothing=smoothing, reduction=reduction, class_scale=scale
    )
    wide = student.detach().double().requires_grad_()
    theirs = teacher.double()
    if scale is not None:
        theirs = theirs / theirs.std(1, keepdim=True) * scale.double()[labels][:, None]
    expected = formula(
        wide, theirs, labels, None if weights is None else weights.double(), alpha, temperature, smoothing
    )
    expected = {"mean": expected.mean(), "sum": expected.sum(), "none": expected}[reduction]

    ours = wide.detach().clone().requires_grad_() if exact else student
    found = loss_fn(ours, teacher.double() if exact else teacher, labels, weights)
    assert found.dtype == (torch.float64 if exact else torch.float32)
    close, close_gradient = (1e-6, 1e-6) if exact else (2e-5, 2e-4)
    torch.testing.assert_close(found.double(), expected, rtol=close, atol=close)
    found.sum().backward()
    expected.sum().backward()
    assert ours.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(ours.grad.double(), wide.grad, rtol=close_gradient, atol=2e-5)


def test_defaults_are_those_of_the_second_paper_on_cifar() -> None:
    student, teacher, labels, _ = batch()
    expected = formula(student.double(), teacher.double(), labels, None, 0.9, 4.0, 0.0).mean()
    torch.testing.assert_close(prunekd.Distillation()(student, teacher, labels).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_every_objective_is_the_one_the_trainer_has(objective: str) -> None:
    student, teacher, labels, weights = batch()
    scale = torch.rand(10) + 0.5 if objective == "reshape" else None
    options = {"nontarget": 2.0} if objective == "dkd" else {}
    trainers = create_objective(objective, ObjectiveSettings(alpha=0.7, temperature=2.0), scale, options)
    expected = trainers(student, teacher, labels, weights).sum() / len(labels)
    loss_fn = Distillation(objective=objective, alpha=0.7, temperature=2.0, class_scale=scale, **options)
    torch.testing.assert_close(loss_fn(student, teacher, labels, weights), expected)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_compiles_whole_and_works_under_autocast(objective: str) -> None:
    student, teacher, labels, weights = batch()
    scale = torch.rand(10) + 0.5 if objective == "reshape" else None
    loss_fn = Distillation(objective=objective, class_scale=scale)
    plain = loss_fn(student, teacher, labels, weights)
    compiled = torch.compile(loss_fn, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(student, teacher, labels, weights), plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss_fn(student.bfloat16(), teacher.bfloat16(), labels, weights)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, rtol=0.02, atol=0)
    student.grad = None
    (1024 * compiled(student, teacher, labels, weights)).backward()  # as under a GradScaler
    (expected,) = torch.autograd.grad(loss_fn(student, teacher, labels, weights), student)
    torch.testing.assert_close(student.grad, 1024 * expected)


def test_soft_labels_and_mixed_labels_are_taken() -> None:
    student, teacher, labels, _ = batch()
    loss_fn = Distillation(reduction="none")
    all_logits = SoftLabels(logits=teacher.half())
    torch.testing.assert_close(loss_fn(student, all_logits, labels), loss_fn(student, teacher.half(), labels))
    values, classes = teacher.half().topk(10)
    sparse = SoftLabels(
        logits=values, ids=classes.to(torch.int16), std=teacher.std(1), logsumexp=teacher.div(4).logsumexp(1)
    )
    torch.testing.assert_close(loss_fn(student, sparse, labels), loss_fn(student, teacher, labels), rtol=1e-2, atol=0)
    mixed = F.one_hot(labels, 10).float()
    torch.testing.assert_close(loss_fn(student, teacher, mixed), loss_fn(student, teacher, labels))


def test_cached_soft_labels_belong_to_the_crops_that_a_replaying_loader_shows(tiny_store: Store) -> None:
    view = ViewSettings(kind="random_resized_crop", size=12)
    layer = nn.Linear(3 * 12 * 12, 4)

    def network(images: Tensor) -> Tensor:
        return layer(images.flatten(1).float() / 255)

    cached = cached_teacher(tiny_store, network, view)
    common = {"batch_size": 16, "view": view, "seed": 8, "dtype": torch.uint8, "workers": 1}
    with (
        Loader(tiny_store, **common, replay=cached.replay) as loader,  # type: ignore[arg-type]
        Loader(tiny_store, **common) as other,  # type: ignore[arg-type]
    ):
        for epoch in range(4):
            for batch, plain in zip(loader, other, strict=True):
                targets = cached.lookup(batch.ids, cached.view_index_for(epoch))
                online = network(batch.images)
                torch.testing.assert_close(targets.logits.float(), online, rtol=2e-3, atol=2e-3)
                student = torch.zeros_like(online)
                found, expected = (Distillation()(student, t, batch.labels) for t in (targets, online))
                torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-4)
                assert torch.equal(batch.ids, plain.ids)  # the order is the Loader's own
                assert not torch.equal(batch.images, plain.images)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_teacher_may_be_left_out_only_if_it_has_no_say(objective: str) -> None:
    student, _, labels, weights = batch()
    scale = torch.ones(10) if objective == "reshape" else None
    expected = (F.cross_entropy(student, labels, reduction="none", label_smoothing=0.1) * weights).mean()
    silent = Distillation(objective=objective, alpha=0, label_smoothing=0.1, class_scale=scale)
    torch.testing.assert_close(silent(student, None, labels, weights), expected)
    if objective != "hard":
        with pytest.raises(ValueError, match=f"teacher_logits is None, but alpha is 0.9 .*{objective}.*alpha=0"):
            Distillation(objective=objective, class_scale=scale)(student, None, labels)


def test_gradients_reach_the_student_alone() -> None:
    student, teacher, labels, weights = batch()
    teacher.requires_grad_()
    weights.requires_grad_()
    Distillation()(student, teacher, labels, weights).backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert weights.grad is None


def test_it_is_a_module_without_state_whose_statistics_move() -> None:
    scale = torch.rand(10) + 0.5
    model = nn.ModuleDict({"loss": Distillation(objective="reshape", class_scale=scale)})
    assert list(model.parameters()) == []
    assert model.state_dict() == {}
    student, teacher, labels, _ = batch()
    expected = model["loss"](student, teacher, labels)
    model.double()
    assert model["loss"].class_scale.dtype == torch.float64
    for loss_fn in (model["loss"], copy.deepcopy(model["loss"]), pickle.loads(pickle.dumps(model["loss"]))):  # noqa: S301
        found = loss_fn(student.double(), teacher.double(), labels)
        torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=0)
    model.to("meta")
    with pytest.raises(ValueError, match="class_scale"):
        model["loss"](student, teacher, labels)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 1.5}, r"alpha is 1.5.*\[0, 1\]"),
        ({"alpha": "auto"}, "alpha is 'auto'; give a number"),
        ({"temperature": -1.0}, "temperature is -1.0.*positive"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"objective": "dkdd"}, "did you mean 'dkd'"),
        ({"reduction": "average"}, "unknown reduction 'average'.*mean, none, sum"),
        ({"nontarget": 1.0}, "unknown option .*'nontarget'.*residual"),
        ({"objective": "reshape"}, "class statistics"),
        ({"objective": "dkd", "class_scale": torch.ones(3)}, "does not reshape"),
    ],
)
def test_errors_name_the_value_and_what_would_be_right(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distillation(**wrong)  # type: ignore[arg-type]


def test_the_example_of_the_docstring_runs() -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(Distillation, globs={})
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(failed=0, attempted=5)


def test_batches_that_do_not_fit_are_named() -> None:
    student, teacher, labels, _ = batch()
    loss_fn = Distillation()
    with pytest.raises(ValueError, match=r"teacher_logits have shape \(8, 9\)"):
        loss_fn(student, teacher[:, :9], labels)
    with pytest.raises(ValueError, match="labels"):
        loss_fn(student, teacher, labels[:5])
    with pytest.raises(ValueError, match="weight"):
        loss_fn(student, teacher, labels, torch.ones(3))
