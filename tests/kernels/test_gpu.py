"""What only a GPU can show: CUDA graphs, no synchronisation, the device guard, unknown labels, real speed of memory."""

import pytest
import torch
from torch import Tensor

from prunekd_kernels import kd_loss, kd_loss_sparse, normalize, teacher_head_kd

pytestmark = pytest.mark.gpu


def make_inputs(rows: int = 64, classes: int = 1000, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    teacher = 3 * torch.randn(rows, classes, device="cuda")
    values, ids = teacher.topk(10, dim=1)
    return {
        "student": torch.randn(rows, classes, device="cuda", dtype=dtype, requires_grad=True),
        "teacher": teacher.to(dtype),
        "labels": torch.randint(0, classes, (rows,), device="cuda"),
        "ids": ids.to(torch.int16),
        "values": values.half(),
        "features": torch.randn(rows, 512, device="cuda", dtype=dtype),
        "head": torch.randn(classes, 512, device="cuda", dtype=dtype) / 16,
        "alpha": torch.tensor(0.5, device="cuda"),
        "temperature": torch.tensor(2.0, device="cuda"),
    }


def step(x: dict[str, Tensor]) -> Tensor:
    """All three losses, forward and backward; returns the gradient."""
    x["student"].grad = None
    options = {"alpha": x["alpha"], "temperature": x["temperature"]}
    loss = kd_loss(x["student"], x["teacher"], x["labels"], **options)
    loss = loss + kd_loss_sparse(x["student"], x["ids"], x["values"], None, x["labels"], **options)
    loss = loss + teacher_head_kd(x["student"], x["features"], x["head"], None, x["labels"], **options)
    loss.mean().backward()
    assert x["student"].grad is not None
    return x["student"].grad


def test_a_step_never_synchronises():
    x = make_inputs()
    step(x)  # compile first
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(x)
        kd_loss(x["student"], x["teacher"], x["labels"], alpha=0.25, temperature=1.0, stats=True)
        normalize(torch.zeros(2, 8, 8, 3, dtype=torch.uint8, device="cuda"), [1.0] * 3, [2.0] * 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_cuda_graph_replays_with_new_alpha_and_inputs():
    x = make_inputs()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    x["student"].grad = None
    with torch.cuda.graph(graph):
        captured = step(x)
    with torch.no_grad():
        x["student"].normal_()
        x["alpha"].fill_(0.9)
        x["temperature"].fill_(4.0)
    graph.replay()
    replayed = captured.clone()
    torch.testing.assert_close(replayed, step(x))


def test_unknown_labels_make_their_row_nan_and_touch_no_other():
    x = make_inputs(rows=4)
    x["labels"] = torch.tensor([3, -1, 1000, 5], device="cuda")
    loss = kd_loss(x["student"], x["teacher"], x["labels"], alpha=0.5, temperature=1.0)
    loss.sum().backward()
    assert torch.isnan(loss).tolist() == [False, True, True, False]
    assert torch.isnan(x["student"].grad).all(1).tolist() == [False, True, True, False]


def test_compiled_with_cuda_graphs_is_the_same():
    x = make_inputs(dtype=torch.float32)
    compiled = torch.compile(kd_loss, fullgraph=True, mode="reduce-overhead")
    for alpha in (0.2, 0.4, 0.8):
        got = compiled(x["student"], x["teacher"], x["labels"], alpha=alpha, temperature=2.0)
        torch.testing.assert_close(got, kd_loss(x["student"], x["teacher"], x["labels"], alpha=alpha, temperature=2.0))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_runs_on_the_tensors_gpu_not_the_current_one():
    student = torch.randn(4, 10, device="cuda:1", requires_grad=True)
    labels = torch.zeros(4, dtype=torch.long, device="cuda:1")
    loss = kd_loss(student, student.detach(), labels, alpha=0.5, temperature=1.0)
    loss.sum().backward()
    assert loss.device == student.grad.device == student.device


@pytest.mark.parametrize("classes", [2, 1000, 21841, 50000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:])
def test_full_sizes_match_float64(classes, dtype):
    x = make_inputs(rows=33, classes=max(classes, 10), dtype=dtype)
    student, teacher = x["student"].detach()[:, :classes], x["teacher"][:, :classes]
    labels = x["labels"] % classes
    results = []
    for z, t in ((student, teacher), (student.double(), teacher.double())):
        leaf = z.clone().requires_grad_()
        loss = kd_loss(leaf, t, labels, alpha=0.5, temperature=4.0)
        loss.sum().backward()
        results.append((loss.detach().double(), leaf.grad.double()))
    (loss, grad), (exact_loss, exact_grad) = results
    assert (loss - exact_loss).abs().max() <= 3e-6 * exact_loss.abs().max().clamp(min=1)
    bound = {torch.float32: 3e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}[dtype]
    assert (grad - exact_grad).norm() <= bound * exact_grad.norm()
