"""The CPU kernels' own parts: exp, 16-bit conversions, threads, the cache."""

import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from prunekd_kernels import kd_loss, normalize

numba = pytest.importorskip("numba")
from prunekd_kernels import _numba_math, _parallel  # noqa: E402


@numba.njit
def _map_exp(x):
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = _numba_math.exp(x[i])
    return out


@numba.njit
def _copy(source, target):
    for i in range(source.size):
        _numba_math.store(target, i, _numba_math.load(source, i))


def test_exp_is_accurate_and_keeps_special_values():
    x = np.linspace(-87, 0, 200_001).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(_map_exp(x) / exact - 1).max() < 4e-7
    special = np.array([0.0, -np.inf, np.nan, -1e30, -88.0], np.float32)
    np.testing.assert_array_equal(_map_exp(special), np.array([1.0, 0.0, np.nan, 0.0, 0.0], np.float32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_loads_and_stores_are_pytorchs(dtype, generator):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    wide = torch.empty(every.numel())
    _copy(_numba_math.flat_view(every), wide.numpy())
    torch.testing.assert_close(wide, every.float(), rtol=0, atol=0, equal_nan=True)
    values = torch.cat([
        torch.randn(50_000, generator=generator) * 10.0 ** torch.randint(-9, 9, (50_000,), generator=generator),
        torch.tensor([0.0, -0.0, float("inf"), float("nan"), 65504.0, 65520.0, 3.39e38, 1e-40, 2.0**-25, 1 + 2.0**-9]),
    ])  # fmt: skip
    narrow = torch.empty(values.numel(), dtype=dtype)
    _copy(values.numpy(), _numba_math.flat_view(narrow))
    torch.testing.assert_close(narrow, values.to(dtype), rtol=0, atol=0, equal_nan=True)


def _step(rows: int = 256, classes: int = 1000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    student, teacher = torch.randn(2, rows, classes, generator=generator)
    student.requires_grad_()
    labels = torch.randint(0, classes, (rows,), generator=generator)
    kd_loss(student, teacher, labels, alpha=0.5, temperature=2.0, backend="numba").sum().backward()
    assert student.grad is not None
    return student.grad


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("with_openmp", [True, False], ids=["openmp", "pool"])
def test_result_does_not_depend_on_threads(count, with_openmp, threads, monkeypatch):
    monkeypatch.setattr(_parallel, "_WORTH_A_THREAD", 1)
    threads(1)
    alone = _step()
    threads(count)
    if not with_openmp:
        monkeypatch.setattr(_parallel, "_gomp_parallel", lambda: None)
    elif _parallel._gomp_parallel() is None:
        pytest.skip("PyTorch has no OpenMP runtime with GOMP_parallel here")
    assert torch.equal(_step(), alone)


def test_several_python_threads_at_once(threads, monkeypatch):
    """A reader may normalise while the trainer computes a loss; Numba's own threads would end the process."""
    threads(2)
    monkeypatch.setattr(_parallel, "_WORTH_A_THREAD", 1)
    wanted = _step()
    wrong: list[int] = []

    def work(number: int) -> None:
        wrong.extend(number for _ in range(5) if not torch.equal(_step(), wanted))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)
    assert not wrong


_IMAGES = torch.arange(8 * 64 * 64 * 3).to(torch.uint8).reshape(8, 64, 64, 3)


def _child(queue) -> None:
    torch.set_num_threads(1)  # as DataLoader does in its workers
    queue.put(normalize(_IMAGES, [9.0] * 3, [2.0] * 3, backend="numba").sum().item())


def test_a_forked_worker_can_use_the_kernels(threads, monkeypatch):
    threads(2)
    monkeypatch.setattr(_parallel, "_WORTH_A_THREAD", 1)
    _step()  # the parent has used its threads
    wanted = normalize(_IMAGES, [9.0] * 3, [2.0] * 3, backend="numba").sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    assert queue.get(timeout=30) == pytest.approx(wanted)
    child.join(timeout=10)
    assert child.exitcode == 0


_ONE_STEP = """
import torch
from prunekd_kernels import kd_loss
torch.set_num_threads(2)
student = torch.randn(1024, 1000, requires_grad=True)
kd_loss(student, student.detach(), torch.zeros(1024, dtype=torch.long), alpha=0.5, temperature=2.0).sum().backward()
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    files = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _ONE_STEP], env=environment, check=True, timeout=120)
        files.append(sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.nb?")))
    assert files[0]
    assert files[0] == files[1]


def test_an_unwritable_cache_is_no_error(monkeypatch):
    real = numba.njit

    def without_a_cache_folder(*args, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return real(*args, **options)

    monkeypatch.setattr(numba, "njit", without_a_cache_folder)
    double = _numba_math.jit(_numba_math.STRICT)(lambda x: 2 * x)
    assert double(21) == 42
