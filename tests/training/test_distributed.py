"""Several processes train the run one process would: by torchrun on one host, and on two hosts of their own network."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from prunekd.common.files import read_json
from prunekd.pruning.scores import read_scores
from prunekd.store import Store
from prunekd.training.checkpoint import checkpoints

SCRIPT = """
import sys
from pathlib import Path
from prunekd.store import open_store
from prunekd.common.distributed import open_world
from prunekd.training import RunSpec, Trainer, load_recipe
store, out = open_store(Path(sys.argv[1])), Path(sys.argv[2])
with open_world('cpu') as world:
    spec = RunSpec(store=store, recipe=load_recipe('demo', sys.argv[3:]), out=out)
    Trainer(spec, world, resume='auto').fit()
"""
# no batch norm, whose statistics are each process's own
SETTINGS = [
    "epochs=2", "batch_size=24", "precision=fp32", "log_every=1", "model.name=test_convnext", "optimizer.lr=0.01",
    "train_view.size=32", "eval_view.size=32", "eval.every_epochs=1", "ema.decay=0.5", "track=[aum, forgetting, dual]",
]  # fmt: skip


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "train.py"
    path.write_text(SCRIPT)
    return path


def torchrun(script: Path, store: Store, out: Path, *launch: str) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", *launch, "--rdzv-backend", "c10d",
        str(script), str(store.path), str(out), *SETTINGS,
    ]  # fmt: skip


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **extra}


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    validated = [line["val_samples"] for line in lines if "val_samples" in line]
    assert validated == [32, 32]  # every sample once, though 32 is not divisible by 3
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.fixture(scope="module")
def alone(script: Path, tiny_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    command = torchrun(script, tiny_store, out, "--nproc-per-node", "1", "--rdzv-endpoint", "localhost:0")
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_train_the_same_run_as_one(
    script: Path, tiny_store: Store, alone: Path, tmp_path: Path, processes: int
) -> None:
    """Same global batches for any world size, so losses agree to the rounding of float32 sums in another order."""
    out = tmp_path / "run"
    launch = ("--nproc-per-node", str(processes), "--rdzv-endpoint", "localhost:0")
    command = torchrun(script, tiny_store, out, *launch)
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(alone)) == 8
    np.testing.assert_allclose(losses(out), losses(alone), rtol=1e-4)
    expected = load_file(alone / "model.safetensors")
    for name, tensor in load_file(out / "model.safetensors").items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
    one, several = (read_scores(run / "scores.parquet") for run in (alone, out))
    for name in ("aum", "dual"):
        np.testing.assert_allclose(several.columns[name], one.columns[name], rtol=1e-2, atol=1e-3, err_msg=name)
    assert (several.columns["forgetting"] == one.columns["forgetting"]).mean() > 0.95  # a margin of 0 may tip over
    ledger = read_json(out / "result.json")["ledger"]
    assert len(ledger["ranks"]) == processes
    walls = [sum(seconds.values()) for seconds in ledger["ranks"]]
    assert walls[0] == pytest.approx(ledger["wall_seconds"], rel=0.01)
    assert sum(ledger["critical_path"].values()) == pytest.approx(max(walls))
    assert "ranks" not in read_json(alone / "result.json")["ledger"]


def test_processes_agree_on_dynamic_subsets_and_go_on_together(script: Path, tiny_store: Store, tmp_path: Path) -> None:
    """A dynamic policy under two processes: each sees half of the losses, both choose the same samples from all.

    Did they not, they would take different numbers of steps and wait for each other for ever; the run is stopped and
    resumed on top, from state that was brought together.
    """
    out = tmp_path / "run"
    launch = ("--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0")
    command = torchrun(script, tiny_store, out, *launch)
    more = ["dynamic.policy=infobatch", "epochs=6", "checkpoint.every_steps=1"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, env=environment(), timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    whole = read_json(out / "result.json")
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seen = [record["samples"] for record in records if record["kind"] == "epoch"]
    assert seen[0] == seen[-1] == 96
    assert min(seen) < 96
    (out / "result.json").unlink()
    newest = checkpoints(out / "checkpoints")[-1]
    shutil.rmtree(newest)  # the run ends at the checkpoint before: go on from there
    before = load_file(out / "model.safetensors")
    done = subprocess.run([*command, *more], capture_output=True, text=True, env=environment(), timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_json(out / "result.json")["samples_seen"] == whole["samples_seen"]
    for name, tensor in load_file(out / "model.safetensors").items():
        np.testing.assert_array_equal(tensor, before[name], err_msg=name)


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a virtual cable, with the addresses 10.77.0.1 and 10.77.0.2."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    names = tuple(f"prunekd-{os.getpid()}-{k}" for k in (1, 2))
    try:
        for name in names:
            made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"this system makes no network namespaces: {made.stderr.strip()}")
        cable = ["type", "veth", "peer", "name", "eth0", "netns", names[1]]
        subprocess.run(["ip", "link", "add", "eth0", "netns", names[0], *cable], check=True)
        for k, name in enumerate(names, start=1):
            inside = ["ip", "-n", name]
            subprocess.run([*inside, "addr", "add", f"10.77.0.{k}/24", "dev", "eth0"], check=True)
            for device in ("lo", "eth0"):
                subprocess.run([*inside, "link", "set", device, "up"], check=True)
        yield names[0], names[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_hosts_train_together_over_a_network(
    script: Path, tiny_store: Store, alone: Path, tmp_path: Path, two_hosts: tuple[str, str]
) -> None:
    out = tmp_path / "run"
    launch = ("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-endpoint", "10.77.0.1:29511", "--rdzv-id", "two")
    processes = []
    for k, host in enumerate(two_hosts, start=1):
        # the first host must be told that it is the meeting point: its host name does not resolve to its address
        mine = ("--local-addr", f"10.77.0.{k}", "--rdzv-conf", f"is_host={int(k == 1)}")
        command = torchrun(script, tiny_store, out, *launch, *mine)
        variables = environment(GLOO_SOCKET_IFNAME="eth0")
        inside = ["ip", "netns", "exec", host, *command]
        processes.append(
            subprocess.Popen(inside, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors[-3000:]
    np.testing.assert_allclose(losses(out), losses(alone), rtol=1e-4)
