"""Runs that are killed, stopped, starved of disk or fed with rubbish, and what is left of them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prunekd.common.distributed import World
from prunekd.models import load_trained
from prunekd.pruning.scores import read_scores
from prunekd.store import Store
from prunekd.training import Recipe, RunSpec, Trainer, load_recipe
from prunekd.training.checkpoint import checkpoints

WORLD = World(0, 1, torch.device("cpu"))
SMALL = ["epochs=2", "batch_size=16", "precision=fp32", "log_every=2", "train_view.size=12", "eval_view.size=12"]
EVERYTHING = [
    "accumulate=2", "clip_norm=0.5", "ema.decay=0.9", "mix.mixup=0.4", "mix.cutmix=1.0", "optimizer.name=lamb",
    "progressive.start=8", "progressive.multiple=4", "progressive.ramp=[0.2, 0.6]", "schedule.name=linear",
]  # fmt: skip


def recipe(*overrides: str) -> Recipe:
    return load_recipe("demo", [*SMALL, *overrides])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    expected = weights(one)
    for name, tensor in weights(other).items():
        assert torch.equal(tensor, expected[name]), name


class Killed(BaseException):
    """Stands for a process that ends without a word."""


def die_at_step(trainer: Trainer, step: int) -> None:
    """Let a trainer's process end, as it were, when it is about to take this step."""
    take = trainer.learner.step

    def mortal(*args: object) -> None:
        if trainer.global_step == step:
            raise Killed
        take(*args)  # type: ignore[arg-type]

    trainer.learner.step = mortal  # type: ignore[method-assign]
    with pytest.raises(Killed):
        trainer.fit()
    trainer.close()


@pytest.mark.parametrize("killed_at", [3, 6, 8])
@pytest.mark.parametrize("settings", [["optimizer.name=adamw", "optimizer.lr=0.01"], EVERYTHING], ids=["plain", "all"])
def test_a_resumed_run_is_bit_identical(
    tiny_store: Store, tmp_path: Path, killed_at: int, settings: list[str], told: list[str]
) -> None:
    chosen = recipe("checkpoint.every_steps=1", *settings)
    expected = Trainer(RunSpec(store=tiny_store, recipe=chosen, out=tmp_path / "whole"), WORLD).fit()
    spec = RunSpec(store=tiny_store, recipe=chosen, out=tmp_path / "killed")
    die_at_step(Trainer(spec, WORLD), killed_at)
    result = Trainer(spec, WORLD, resume="auto").fit()
    assert any("resumed from" in line for line in told)
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    assert result["top1"] == expected["top1"]
    assert result["samples_seen"] == expected["samples_seen"]
    assert result["bytes_read"] >= expected["bytes_read"]
    records = [json.loads(line) for line in (tmp_path / "killed/metrics.jsonl").read_text().splitlines()]
    steps = [r["step"] for r in records if r["kind"] == "epoch"]
    assert steps == [6, 12]


def test_a_corrupt_checkpoint_is_named_and_the_one_before_taken(
    tiny_store: Store, tmp_path: Path, told: list[str]
) -> None:
    spec = RunSpec(store=tiny_store, recipe=recipe("checkpoint.every_steps=2"), out=tmp_path / "run")
    trainer = Trainer(spec, WORLD)
    trainer.train_epoch()
    trainer.close()
    older, newest = checkpoints(tmp_path / "run/checkpoints")
    (newest / "model.safetensors").write_bytes(b"rubbish")
    resumed = Trainer(spec, WORLD, resume="auto")
    assert newest.name in told[0]
    assert "trying the one before" in told[0]
    assert resumed.global_step == 4
    resumed.close()
    with pytest.raises(ValueError, match="cannot be loaded"):
        Trainer(spec, WORLD, resume=str(newest))
    (older / "state.json").write_text("{")
    with pytest.raises(ValueError, match=rf"{older.name} cannot be loaded"):
        Trainer(spec, WORLD, resume="auto")  # rather than start from scratch over what there is


def test_sigterm_leaves_a_checkpoint_to_go_on_from(tiny_store: Store, tmp_path: Path) -> None:
    spec = RunSpec(store=tiny_store, recipe=recipe("epochs=200"), out=tmp_path / "run")
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(RuntimeError, match="stopped by a signal"):
        Trainer(spec, WORLD).fit()
    saved = checkpoints(tmp_path / "run/checkpoints")
    assert len(saved) == 1
    resumed = Trainer(spec, WORLD, resume="auto")
    assert resumed.global_step == int(saved[0].name.split("-")[1]) > 0
    resumed.close()


def test_sigusr1_writes_a_checkpoint_and_the_run_goes_on(tiny_store: Store, tmp_path: Path) -> None:
    trainer = Trainer(RunSpec(store=tiny_store, recipe=recipe(), out=tmp_path / "run"), WORLD)
    trainer.on_progress(lambda values: os.kill(os.getpid(), signal.SIGUSR1) if values["step"] == 4 else None)
    trainer.fit()
    assert [path.name for path in checkpoints(tmp_path / "run/checkpoints")] == ["step-00000004"]


def test_checkpoints_are_pruned_and_a_full_disk_spares_the_old_one(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(store=tiny_store, recipe=recipe("checkpoint.every_steps=2"), out=tmp_path / "run")
    trainer = Trainer(spec, WORLD)
    trainer.train_epoch()
    kept = [path.name for path in checkpoints(tmp_path / "run/checkpoints")]
    assert kept == ["step-00000004", "step-00000006"]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("prunekd.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match=r"No space left.*earlier checkpoints are kept"):
        trainer.train_epoch()
    trainer.close()
    assert sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir()) == kept


def test_the_best_weights_are_kept(tiny_store: Store, tmp_path: Path) -> None:
    settings = recipe("checkpoint.keep_best=true", "eval.every_epochs=1", "epochs=4", "optimizer.lr=0.3")
    trainer = Trainer(RunSpec(store=tiny_store, recipe=settings, out=tmp_path / "run"), WORLD)
    best, seen = -1.0, None
    while not trainer.finished:
        record = trainer.train_epoch()
        if record["val_top1"] > best:
            best, seen = record["val_top1"], {n: t.clone() for n, t in trainer.learner.model.state_dict().items()}
    trainer.finish()
    assert seen is not None
    model, _ = load_trained(tmp_path / "run/best.safetensors")
    assert all(torch.equal(tensor, seen[name]) for name, tensor in model.state_dict().items())


def test_an_infinite_loss_stops_the_run_names_its_batch_and_spares_the_good_checkpoint(
    tiny_store: Store, tmp_path: Path
) -> None:
    settings = recipe("checkpoint.every_steps=2", "log_every=100", "epochs=9")
    trainer = Trainer(RunSpec(store=tiny_store, recipe=settings, out=tmp_path / "run"), WORLD)
    step, ids = trainer.learner.step, {}

    def poisoned(batch, number, rate, view_index):  # type: ignore[no-untyped-def]
        ids[number] = batch.ids.tolist()
        if number == 7:
            next(trainer.learner.model.parameters()).data.fill_(float("inf"))
        step(batch, number, rate, view_index)

    trainer.learner.step = poisoned  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=r"not finite at step 7 of epoch 1.*step-00000006"):
        trainer.fit()
    trainer.close()
    dump = json.loads((tmp_path / "run/nonfinite-rank0.json").read_text())
    assert [sample["id"] for sample in dump["samples"]] == ids[7]
    newest = checkpoints(tmp_path / "run/checkpoints")[-1]
    assert all(tensor.isfinite().all() for tensor in load_file(newest / "model.safetensors").values())


SCRIPT = """
import os, signal, sys
from pathlib import Path
from prunekd.store import open_store
from prunekd.common.distributed import open_world
from prunekd.training import RunSpec, Trainer, load_recipe
store, out, mode = open_store(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
with open_world('cpu') as world:
    spec = RunSpec(store=store, recipe=load_recipe('demo', sys.argv[4:]), out=out)
    trainer = Trainer(spec, world, resume='auto')
    if mode == 'rank-dies' and world.rank == 1 and not trainer.global_step:
        step = trainer.learner.step
        def mortal(batch, number, *rest):
            if number == 7:
                os.kill(os.getpid(), signal.SIGKILL)
            step(batch, number, *rest)
        trainer.learner.step = mortal
    trainer.fit()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_kill_9_at_any_moment_and_the_run_ends_as_if_nothing_had_been(
    tiny_store: Store, tmp_path: Path, script: Path
) -> None:
    """A real process, killed again and again wherever it happens to be, also while it writes checkpoints."""
    settings = ["checkpoint.every_steps=1", *SMALL, "epochs=12", "ema.decay=0.9", "mix.mixup=0.2"]
    spec = RunSpec(store=tiny_store, recipe=load_recipe("demo", settings), out=tmp_path / "whole")
    torch.set_num_threads(1)
    Trainer(spec, WORLD).fit()
    command = [sys.executable, str(script), str(tiny_store.path), str(tmp_path / "killed"), "plain", *settings]
    kills = 0
    while not (tmp_path / "killed/result.json").exists():
        before = len(list((tmp_path / "killed").glob("checkpoints/step-*"))) if kills else 0
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        start = newest(tmp_path / "killed")
        while kills < 3 and process.poll() is None and newest(tmp_path / "killed") < start + 7:
            assert time.monotonic() < deadline, before
            time.sleep(0.001)
        if kills < 3:
            process.kill()
            kills += 1
        _, errors = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), errors.decode()[-2000:]
    assert kills == 3
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")


def newest(run: Path) -> int:
    found = checkpoints(run / "checkpoints")
    return int(found[-1].name.split("-")[1]) if found else 0


def test_torchrun_brings_a_run_back_after_a_rank_was_killed(tiny_store: Store, tmp_path: Path, script: Path) -> None:
    settings = ["checkpoint.every_steps=2", *SMALL]
    for name, mode in (("whole", "plain"), ("killed", "rank-dies")):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1",
            "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
            str(script), str(tiny_store.path), str(tmp_path / name), mode, *settings,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        if mode == "rank-dies":
            assert "exitcode: -9" in done.stderr
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("policy", ["infobatch", "rs2", "ucb"])
def test_a_resumed_run_with_a_dynamic_policy_and_tracking_is_bit_identical(
    tiny_store: Store, tmp_path: Path, policy: str
) -> None:
    chosen = recipe(
        "checkpoint.every_steps=1", "epochs=6", f"dynamic.policy={policy}", "track=[aum, forgetting, dual, tdds]"
    )
    whole = Trainer(RunSpec(store=tiny_store, recipe=chosen, out=tmp_path / "whole"), WORLD)
    expected = whole.fit()
    spec = RunSpec(store=tiny_store, recipe=chosen, out=tmp_path / "killed")
    die_at_step(Trainer(spec, WORLD), whole.global_step // 2)
    result = Trainer(spec, WORLD, resume="auto").fit()
    assert expected["samples_seen"] < 6 * 96  # something was left out
    assert result["samples_seen"] == expected["samples_seen"]
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    one, two = (read_scores(tmp_path / name / "scores.parquet") for name in ("whole", "killed"))
    for name in one.columns:
        assert (one.columns[name].tobytes()) == two.columns[name].tobytes(), name
