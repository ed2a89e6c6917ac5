"""Terminals and pipes that go away, or are full, end no work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunekd.store import Store

SMALL = [
    "--recipe", "demo", "--set", "epochs=2", "--set", "batch_size=16", "--set", "train_view.size=12", "--set",
    "eval_view.size=12", "--device", "cpu",
]  # fmt: skip


def run(store: Store, words: list[str], stdout: int, stderr: int) -> int:
    command = [sys.executable, "-m", "prunekd", words[0], str(store.path), *SMALL, *words[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, stdout=stdout, stderr=stderr, env=environment, check=False).returncode


@pytest.fixture(params=["closed", "full"])
def broken(request: pytest.FixtureRequest) -> int:
    """A file descriptor that nothing can be written to."""
    if request.param == "full":
        return os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("words", [["train"], ["bench", "--arms", "plain", "--keep", "1"]], ids=["train", "bench"])
def test_a_run_goes_on_to_its_end(tiny_store: Store, tmp_path: Path, broken: int, words: list[str]) -> None:
    code = run(tiny_store, [*words, "--out", str(tmp_path / "out")], broken, broken)
    os.close(broken)
    (result,) = (tmp_path / "out").rglob("result.json")
    assert json.loads(result.read_text())["epochs"] == 2
    assert code == 1  # what was asked for on stdout is not there


def test_a_broken_stdout_is_told_in_one_line(tiny_store: Store, tmp_path: Path, broken: int) -> None:
    with (tmp_path / "errors").open("wb") as errors:
        code = run(tiny_store, ["train", "--out", str(tmp_path / "out")], broken, errors.fileno())
    os.close(broken)
    lines = (tmp_path / "errors").read_text().splitlines()
    assert code == 1
    assert lines[-1].startswith("prunekd: error: the verb is done, but its result could not be written to stdout")
    assert not any("Traceback" in line or "Exception ignored" in line for line in lines)


def test_a_broken_stderr_leaves_the_result_on_stdout(tiny_store: Store, tmp_path: Path, broken: int) -> None:
    with (tmp_path / "output").open("wb") as output:
        code = run(tiny_store, ["train", "--json", "--out", str(tmp_path / "out")], output.fileno(), broken)
    os.close(broken)
    assert code == 0
    assert json.loads((tmp_path / "output").read_text())["epochs"] == 2
