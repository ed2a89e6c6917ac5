"""Ctrl-C: the first saves and ends, the second ends at once, alone, in a sweep and under torchrun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from prunekd.common.distributed import World
from prunekd.store import Store
from prunekd.training import RunSpec, Trainer, load_recipe
from prunekd.training.checkpoint import checkpoints
from prunekd.training.signals import Interrupted

WORLD = World(0, 1, torch.device("cpu"))
SMALL = ["batch_size=16", "precision=fp32", "log_every=1", "train_view.size=12", "eval_view.size=12"]
LONG = [*SMALL, "epochs=100000", "eval.every_epochs=100000"]
SETTINGS = [word for setting in LONG for word in ("--set", setting)]


def press(times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


def interrupt(command: Sequence[object], begun: Path, **environment: str) -> tuple[int, str]:
    """Start a command, send Ctrl-C to its process group once the file `begun` is there; its exit code and stderr."""
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    ) as process:
        while not (begun.exists() and b'"train"' in begun.read_bytes()) and process.poll() is None:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def test_the_first_ctrl_c_leaves_a_checkpoint(tiny_store: Store, tmp_path: Path) -> None:
    spec = RunSpec(store=tiny_store, recipe=load_recipe("demo", LONG), out=tmp_path / "run")
    trainer = Trainer(spec, WORLD)
    trainer.on_progress(lambda values: press() if values["step"] == 3 else None)
    with pytest.raises(Interrupted, match=r"stopped by Ctrl-C; go on with `--resume auto` from .*step-00000003"):
        trainer.fit()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = Trainer(spec, WORLD, resume="auto")
    assert resumed.global_step == 3
    resumed.close()


def test_the_second_ctrl_c_ends_at_once(tiny_store: Store, tmp_path: Path) -> None:
    spec = RunSpec(store=tiny_store, recipe=load_recipe("demo", LONG), out=tmp_path / "run")
    trainer = Trainer(spec, WORLD)
    trainer.on_progress(lambda values: press(2))
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.fit()
    assert not isinstance(caught.value, Interrupted)
    assert not checkpoints(tmp_path / "run/checkpoints")
    Trainer(spec, WORLD, resume="auto").close()  # the folder is free again


def test_the_verb_ends_with_130(tiny_store: Store, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["prunekd", "train", tiny_store.path, "--recipe", "demo", *SETTINGS, "--out", run]
    code, errors = interrupt(command, run / "metrics.jsonl")
    assert code == 130, errors
    assert "prunekd: error: stopped by Ctrl-C; go on with `--resume auto`" in errors
    assert "Traceback" not in errors
    assert len(checkpoints(run / "checkpoints")) == 1


def test_a_sweep_saves_every_run_under_way(tiny_store: Store, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    settings = [word for setting in [*SMALL, "epochs=100000"] for word in ("--set", setting)]
    command = [
        "prunekd", "bench", tiny_store.path, "--recipe", "demo", *settings, "--arms", "plain", "--keep", "1,0.5",
        "--out", sweep,
    ]  # fmt: skip
    runs = [sweep / "runs" / name for name in ("plain-all-keep1-seed0", "plain-random-keep0.5-seed0")]
    code, errors = interrupt(command, runs[1] / "metrics.jsonl")
    assert code == 130, errors
    assert "2 runs under way, each with a checkpoint" in errors
    assert all(len(checkpoints(run / "checkpoints")) == 1 for run in runs)


@pytest.mark.slow
def test_under_torchrun_every_process_ends_after_one_checkpoint(tiny_store: Store, tmp_path: Path) -> None:
    """torchrun sends its processes the signal that they have had from the terminal already."""
    run = tmp_path / "run"
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "prunekd"]
    command = [*launch, "train", tiny_store.path, "--recipe", "demo", *SETTINGS, "--device", "cpu", "--out", run]
    code, errors = interrupt(command, run / "metrics.jsonl")
    assert code != 0
    assert "stopped by Ctrl-C" in errors, errors
    assert len(checkpoints(run / "checkpoints")) == 1
