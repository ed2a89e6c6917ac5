"""doctor reports the truth about packages that are there, missing, broken or impostors."""

import json
import subprocess
import sys
from pathlib import Path

import llvmlite
import pytest
import torch
from click.testing import CliRunner

from prunekd._native.libjpeg import bound
from prunekd.cli import main


def examined() -> dict[str, dict[str, object]]:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    return {item["name"]: item for item in json.loads(result.stdout)}


def test_what_is_installed_is_found_with_its_version() -> None:
    found = examined()
    assert found["torch"]["found"]
    assert found["torch"]["detail"] == torch.__version__.split("+")[0] or torch.__version__ in str(
        found["torch"]["detail"]
    )
    assert found["GPU"]["found"] == torch.cuda.is_available()
    assert found["JPEG decoder"]["found"]
    assert found["kernels: torch"]["found"]


@pytest.mark.parametrize(
    ("switch", "llvmlite_version", "detail", "remedy"),
    [
        ("auto", None, "decoded alone, by Pillow's libjpeg", ""),
        ("0", None, "whole images are decoded, at twice the cost: PRUNEKD_NATIVE=0", ""),
        ("off", None, "PRUNEKD_NATIVE is 'off'; it must be 0", ""),
        ("auto", "0.44.0", "twice the cost: llvmlite is 0.44.0", "pip install --upgrade numba"),
        ("1", "0.44.0", "PRUNEKD_NATIVE is 1, but llvmlite is 0.44.0", "pip install --upgrade numba"),
    ],
)
def test_how_crops_are_decoded_and_why(
    monkeypatch: pytest.MonkeyPatch, switch: str, llvmlite_version: str | None, detail: str, remedy: str
) -> None:
    monkeypatch.setenv("PRUNEKD_NATIVE", switch)
    if llvmlite_version is not None:
        monkeypatch.setattr(llvmlite, "__version__", llvmlite_version)
    bound.cache_clear()
    crops = examined()["JPEG crops"]
    bound.cache_clear()
    assert detail in str(crops["detail"])
    assert crops["found"] == detail.startswith("decoded alone")
    assert crops["remedy"] == remedy


def test_pypis_apex_is_told_from_nvidias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex/__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "apex", raising=False)
    apex = examined()["Apex (NVIDIA)"]
    assert not apex["found"]
    assert "not NVIDIA's" in str(apex["detail"])
    assert "NVIDIA/apex" in str(apex["remedy"])


def test_a_package_that_breaks_on_import_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ffcv.py").write_text("raise OSError('libopencv_core.so.406: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ffcv", raising=False)
    ffcv = examined()["FFCV"]
    assert not ffcv["found"]
    assert "libopencv_core" in str(ffcv["detail"])
    assert "libopencv-dev" in str(ffcv["remedy"])


def test_the_table_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    line = next(i for i, text in enumerate(result.stdout.splitlines()) if "DALI" in text)
    assert "missing" in result.stdout.splitlines()[line]
    assert "prunekd[dali]" in result.stdout.splitlines()[line + 1]


def test_without_torch_the_rest_is_still_examined() -> None:
    script = "import sys; sys.modules['torch'] = None; from prunekd.cli import main; main(['doctor', '--json'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {item["name"]: item for item in json.loads(done.stdout)}
    assert not found["torch"]["found"]
    assert found["torch"]["remedy"] == "pip install torch"
    assert not found["kernels"]["found"]
    assert found["JPEG decoder"]["found"]


def test_a_kernel_that_runs_with_a_note_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunekd_kernels.available_backends", lambda: {"triton": "available (interpreter)"})
    assert examined()["kernels: triton"] == {
        "name": "kernels: triton", "found": True, "detail": "available (interpreter)", "remedy": ""
    }  # fmt: skip


def test_what_is_needed_decides_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    assert CliRunner().invoke(main, ["doctor", "--need", "torch", "--need", "JPEG decoder"]).exit_code == 0
    lacking = CliRunner().invoke(main, ["doctor", "--need", "torch", "--need", "DALI"])
    assert lacking.exit_code == 1
    assert "needed and missing: DALI (" in lacking.stderr
    unknown = CliRunner().invoke(main, ["doctor", "--need", "dali"])
    assert unknown.exit_code == 2
    assert "doctor looks at" in unknown.stderr
