"""Which backend runs, what is imported when, and the package's names."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import prunekd_kernels
from prunekd_kernels import BackendUnavailableError, _backends, available_backends, resolve_backend


def run_python(code: str, **environment: str) -> str:
    import os

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False,
                          env=os.environ | environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_needs_neither_triton_nor_numba():
    code = "import sys, prunekd_kernels; print([m for m in ('triton', 'numba') if m in sys.modules])"
    assert run_python(code).strip() == "[]"


@pytest.mark.parametrize("name", ["kd_loss", "kd_loss_sparse", "teacher_head_kd", "normalize"])
def test_a_function_has_the_name_of_no_module_and_pickles_by_name(name):
    folder = Path(prunekd_kernels.__file__).parent
    assert not (folder / name).exists()
    assert not (folder / f"{name}.py").exists()
    function = getattr(prunekd_kernels, name)
    assert pickle.loads(pickle.dumps(function)) is function  # noqa: S301


def test_available_backends_names_all_and_gives_reasons(monkeypatch):
    assert set(available_backends()) == {"torch", "numba", "triton"}
    assert available_backends()["torch"] == "available"
    monkeypatch.setattr(_backends, "_installed", lambda package: False)
    assert "pip install numba" in available_backends()["numba"]
    assert "pip install triton" in available_backends()["triton"]


def test_auto_falls_back_to_torch_and_says_why(monkeypatch):
    assert resolve_backend("auto", "cpu", torch.bfloat16).name == "numba"
    choice = resolve_backend("auto", "cpu", torch.float64)
    assert choice.name == "torch"
    assert "float64" in choice.reason
    assert resolve_backend("auto", "mps", torch.float32).name == "torch"
    monkeypatch.setattr(_backends, "_installed", lambda package: False)
    choice = resolve_backend("auto", "cpu", torch.float32)
    assert choice.name == "torch"
    assert "not installed" in choice.reason


def test_a_backend_by_name_that_cannot_run_is_an_error(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(BackendUnavailableError, match="backend='auto'"):
        resolve_backend("numba", "cuda", torch.float32)
    with pytest.raises(BackendUnavailableError, match="TRITON_INTERPRET=1"):
        resolve_backend("triton", "cpu", torch.float32)
    monkeypatch.setattr(_backends, "_installed", lambda package: False)
    with pytest.raises(BackendUnavailableError, match="pip install numba"):
        resolve_backend("numba", "cpu", torch.float32)
    with pytest.raises(ValueError, match="unknown"):
        resolve_backend("cuda", "cpu", torch.float32)


def test_every_public_name_is_documented():
    for name in prunekd_kernels.__all__:
        assert getattr(prunekd_kernels, name).__doc__
