"""The registered operators: opcheck, torch.compile without graph breaks, and no recompilation for a new alpha."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from prunekd_kernels import dense, kd_loss, kd_loss_sparse, last_layer, normalization, normalize, teacher_head_kd, topk


@pytest.fixture
def inputs(generator):
    student, teacher = torch.randn(2, 6, 12, generator=generator)
    return student.requires_grad_(), teacher, torch.randint(0, 12, (6,), generator=generator)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("stats", [True, False])
def test_opcheck(inputs, stats):
    student, teacher, labels = inputs
    weight, scale = torch.rand(6), torch.rand(12) + 0.5
    numbers = (0.5, 2.0, 0.1, stats, "numba")
    common = (student, labels, weight, scale, None, None, *numbers)
    torch.library.opcheck(dense.LOSS.registered, (*common, teacher))
    zero_and_one = (torch.tensor(0.0), torch.tensor(1.0))
    torch.library.opcheck(dense.LOSS.registered, (student, labels, None, None, *zero_and_one, *numbers, None))
    values, ids = teacher.topk(3, dim=1)
    total = torch.logsumexp(teacher / 2, 1)
    torch.library.opcheck(topk.LOSS.registered, (*common, ids, values, None, teacher.std(1)))
    torch.library.opcheck(
        topk.LOSS.registered, (student, labels, weight, None, None, None, *numbers, ids, values, total, None)
    )
    torch.library.opcheck(last_layer.LOSS.registered, (*common, torch.randn(6, 5), torch.randn(12, 5), torch.randn(12)))


def test_opcheck_normalize():
    images = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    flip = torch.tensor([True, False])
    torch.library.opcheck(normalization.registered, (images, [1.0] * 3, [2.0] * 3, flip, torch.float32, "numba"))


def test_every_function_compiles_without_a_graph_break(inputs):
    student, teacher, labels = inputs
    values, ids = teacher.topk(3, dim=1)
    features, head = torch.randn(6, 5), torch.randn(12, 5)
    images = torch.randint(0, 256, (6, 4, 5, 3), dtype=torch.uint8)

    def everything(z):
        options = {"alpha": 0.5, "temperature": 2.0}
        dense, stats = kd_loss(z, teacher, labels, stats=True, **options)
        sparse = kd_loss_sparse(z, ids, values, None, labels, class_scale=head[:, 0].abs() + 1,
                                teacher_std=teacher.std(1), **options)  # fmt: skip
        fused = teacher_head_kd(z, features, head, None, labels, **options)
        plain = kd_loss(z, teacher, labels, backend="torch", **options)
        return (dense + sparse + fused + plain).sum() + stats.el2n.sum(), normalize(images, [9.0] * 3, [2.0] * 3)

    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for function in (everything, compiled):
        student.grad = None
        total, pixels = function(student)
        total.backward()
        if function is everything:
            wanted = total.detach(), pixels, student.grad.clone()
    torch.testing.assert_close((total.detach(), pixels, student.grad), wanted)


@pytest.mark.parametrize("as_tensor", [True, False], ids=["0-d tensors", "numbers"])
def test_a_new_alpha_and_temperature_do_not_recompile(inputs, as_tensor, run):
    student, teacher, labels = inputs
    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, backend=counter)
    def compiled(z, alpha, temperature):
        return kd_loss(z, teacher, labels, alpha=alpha, temperature=temperature)

    compilations = []
    for step in range(6):
        alpha, temperature = 0.1 + 0.1 * step, 1.5 + step
        given = (torch.tensor(alpha), torch.tensor(temperature)) if as_tensor else (alpha, temperature)
        got = run(compiled, student, *given)
        wanted = run(kd_loss, student, teacher, labels, alpha=alpha, temperature=temperature)
        torch.testing.assert_close(tuple(got), tuple(wanted))
        compilations.append(counter.frame_count)
    # a number that changes makes PyTorch compile once more, with the number as an input; after that, never
    assert compilations[0] == 1
    assert compilations[-1] == (1 if as_tensor else compilations[1])


@pytest.mark.slow
def test_inductor_gives_the_same(inputs, run):
    student, teacher, labels = inputs

    def step(z):
        return kd_loss(2 * z, teacher, labels, alpha=0.5, temperature=2.0)

    torch.testing.assert_close(tuple(run(torch.compile(step, fullgraph=True), student)), tuple(run(step, student)))


def test_a_second_derivative_is_refused_rather_than_wrong(inputs):
    student, teacher, labels = inputs
    loss = kd_loss(student, teacher, labels, alpha=0.5, temperature=2.0, backend="numba").sum()
    (grad,) = torch.autograd.grad(loss, student, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiate twice|does not require grad"):
        grad.sum().backward()
