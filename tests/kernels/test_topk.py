"""kd_loss_sparse on every backend against float64, and against kd_loss where they must agree."""

from functools import partial

import pytest
import torch

from prunekd_kernels import kd_loss, kd_loss_sparse

kd_loss_sparse_reference = partial(kd_loss_sparse, backend="torch")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("residual", ["renormalize", "spread"])
@pytest.mark.parametrize("shape", [(1, 2, 1), (70, 10, 3), (4, 1000, 7), (2, 5003, 100)], ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_matches_float64(backend, device, dtype, residual, shape, soft, generator, run, assert_close):
    rows, classes, kept = shape
    student = (3 * torch.randn(rows, classes, generator=generator)).to(dtype)
    teacher = 3 * torch.randn(rows, classes, generator=generator)
    temperature = 2.0
    values, ids = teacher.topk(kept, dim=1)
    labels = ids[:, -1].int()  # the label among the top K: its entry has two terms of its own
    labels[::2] = torch.randint(0, classes, labels[::2].shape, generator=generator).int()
    if soft:
        labels = torch.softmax(torch.randn(rows, classes, generator=generator), 1)
    total = torch.logsumexp(teacher / temperature, 1) if residual == "spread" else None
    weight = torch.rand(rows, generator=generator) + 0.1
    options = {"alpha": 0.6, "temperature": temperature, "label_smoothing": 0.1 if soft else 0.0}
    wanted = run(
        kd_loss_sparse_reference, student.double(), ids, values.double(), None if total is None else total.double(),
        labels, weight=weight, residual=residual, **options,
    )  # fmt: skip
    got = run(
        kd_loss_sparse, student.to(device), ids.to(torch.int16).to(device), values.to(device),
        None if total is None else total.to(device), labels.to(device), weight=weight.to(device), residual=residual,
        backend=backend, **options,
    )  # fmt: skip
    assert_close(got, wanted, dtype)


def test_all_classes_kept_is_kd_loss(backend, device, generator, run, assert_close):
    """With K = C both residuals mean nothing, and class_scale with the stored std means what it does in kd_loss."""
    student, teacher = 3 * torch.randn(2, 5, 30, generator=generator)
    labels = torch.randint(0, 30, (5,), generator=generator)
    scale = torch.rand(30, generator=generator) + 0.5
    values, ids = teacher.topk(30, dim=1)
    on_device = [t.to(device) for t in (student, ids, values)]
    options = {"alpha": 0.7, "temperature": 3.0, "backend": backend}
    total = torch.logsumexp(teacher / 3.0, 1).to(device)
    wanted = run(kd_loss, student.double(), teacher.double(), labels, **options | {"backend": "torch"})
    for residual in ("renormalize", "spread"):
        got = run(kd_loss_sparse, *on_device, total, labels.to(device), residual=residual, **options)
        assert_close(got, wanted, torch.float32)
    wanted = run(
        kd_loss, student.double(), teacher.double(), labels, class_scale=scale, **options | {"backend": "torch"}
    )
    got = run(kd_loss_sparse, *on_device, None, labels.to(device), class_scale=scale.to(device),
              teacher_std=teacher.std(1).to(device), **options)  # fmt: skip
    assert_close(got, wanted, torch.float32)


def test_stats_are_those_of_kd_loss(backend, device, generator):
    student = 3 * torch.randn(8, 20, generator=generator)
    labels = torch.randint(0, 20, (8,), generator=generator).to(device)
    values, ids = student.topk(3, dim=1)
    _, got = kd_loss_sparse(student.to(device), ids.to(device), values.to(device), None, labels, alpha=0.5,
                            temperature=1.0, stats=True, backend=backend)  # fmt: skip
    _, wanted = kd_loss(student.to(device), None, labels, alpha=0.0, temperature=1.0, stats=True, backend=backend)
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)


def test_empty_batch(backend, device, run):
    got = run(kd_loss_sparse, torch.empty(0, 9, device=device), torch.empty(0, 2, dtype=torch.int32, device=device),
              torch.empty(0, 2, device=device), None, torch.empty(0, dtype=torch.long, device=device), alpha=0.5,
              temperature=1.0, backend=backend)  # fmt: skip
    assert got.loss.shape == (0,)
    assert got.grad.shape == (0, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residual": "drop"}, "'renormalize' or 'spread'"),
        ({"residual": "spread"}, "needs logsumexp"),
        ({"residual": "spread", "logsumexp": torch.zeros(3), "class_scale": torch.ones(10),
          "teacher_std": torch.ones(3)},
         "use residual='renormalize'"),
        ({"class_scale": torch.ones(10)}, "pass both or neither"),
        ({"topk_ids": torch.zeros(3, 11, dtype=torch.long)}, "1 <= K <= 10"),
        ({"topk_ids": torch.zeros(3, 2)}, "expected int16"),
        ({"topk_logits": torch.zeros(3, 3)}, "as topk_ids"),
        ({"topk_ids": torch.tensor([[0, 1], [0, 10], [0, 1]])}, "topk_ids hold 10"),
        ({"labels": torch.tensor([0, -3, 0])}, "labels hold -3"),
    ],
)  # fmt: skip
def test_errors_name_value_and_remedy(changes, message):
    arguments = {
        "student_logits": torch.zeros(3, 10), "topk_ids": torch.tensor([[0, 1]] * 3), "topk_logits": torch.zeros(3, 2),
        "logsumexp": None, "labels": torch.zeros(3, dtype=torch.long), "alpha": 0.5, "temperature": 1.0,
    } | changes  # fmt: skip
    for name in ("torch", "numba"):
        with pytest.raises(ValueError, match=message):
            kd_loss_sparse(**arguments, backend=name)


@pytest.mark.parametrize("spread", [False, True])
def test_reference_gradcheck(spread, generator):
    student, teacher = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    values, ids = teacher.topk(2, dim=1)
    total = torch.logsumexp(teacher / 2.0, 1) if spread else None
    labels = torch.randint(0, 6, (3,), generator=generator)
    student.requires_grad_()

    def loss(z: torch.Tensor) -> torch.Tensor:
        residual = "spread" if spread else "renormalize"
        return kd_loss_sparse_reference(z, ids, values, total, labels, alpha=0.5, temperature=2.0, residual=residual)

    assert torch.autograd.gradcheck(loss, student)
