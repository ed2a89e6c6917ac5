"""`prunekd bench`: every arm, what is made on the way, timing only, the estimate, the logs."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from prunekd.cli import main
from prunekd.store import Store
from support import require

SMALL = [
    "--recipe", "demo", "--set", "epochs=4", "--set", "batch_size=16", "--set", "train_view.size=12",
    "--set", "eval_view.size=12",
]  # fmt: skip
ARMS = "plain,kd,kd-cached,random,medium,infobatch,rs2,equal_time"


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output + result.stderr
    return result


@pytest.fixture(scope="module")
def teacher(tiny_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    run("train", tiny_store.path, *SMALL, "--out", out)
    return out


@pytest.fixture(scope="module")
def sweep(tiny_store: Store, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every arm there is and one of one's own, with caches cold, scores and soft labels made on the way."""
    out = tmp_path_factory.mktemp("sweeps") / "sweep"
    own = "hot:base=kd,distill.temperature=8,optimizer.lr=0.01"
    grid = ["--arms", ARMS, "--arm", own, "--keep", "1,0.5", "--views", 2, "--cold", "--cost", "compact=12"]
    run("bench", tiny_store.path, *SMALL, "--teacher", teacher, *grid, "--out", out)
    return out


def result_of(sweep: Path, name: str) -> dict[str, Any]:
    found = json.loads((sweep / "runs" / name / "result.json").read_text())
    assert isinstance(found, dict)
    return found


def test_every_arm_trains_and_sees_what_it_should(sweep: Path) -> None:
    seen = {
        name.rpartition("-seed")[0]: result_of(sweep, name)["samples_seen"]
        for name in json.loads((sweep / "sweep.json").read_text())["runs"]
    }
    full, half = 4 * 96, 4 * 48
    infobatch = seen.pop("infobatch-all-keep0.5")
    assert half < infobatch <= full
    assert seen == {
        "plain-all-keep1": full, "kd-all-keep1": full, "kd_cached-all-keep1": full, "hot-all-keep1": full,
        "plain-random-keep0.5": half, "kd-random-keep0.5": half, "kd_cached-random-keep0.5": half,
        "random-random-keep0.5": half, "medium-medium-keep0.5": half, "rs2-all-keep0.5": half,
        "equal_time-all-keep0.5": half, "hot-random-keep0.5": half,
    }  # fmt: skip
    hot = json.loads((sweep / "runs/hot-random-keep0.5-seed0/run.json").read_text())
    assert hot["temperature"] == 8
    assert hot["recipe"]["optimizer"]["lr"] == 0.01
    cached = json.loads((sweep / "runs/kd_cached-random-keep0.5-seed0/run.json").read_text())
    assert cached["soft_labels"]["views"] == 2
    assert cached["teacher"] is None


def test_what_was_made_on_the_way_is_a_cost_of_those_who_need_it(sweep: Path) -> None:
    facts = json.loads((sweep / "sweep.json").read_text())
    assert facts["costs"]["compact"]["seconds"] == 12
    assert facts["costs"]["score"]["seconds"] > 0
    assert facts["costs"]["labels"]["seconds"] > 0
    assert facts["cold"] is True
    told = json.loads(run("report", sweep, "--format", "json").stdout)
    once = {(g["arm"], g["policy"], g["keep"]): set(g["one_off"]) for g in told["groups"]}
    assert once["kd", "all", 1.0] == set()
    assert once["kd_cached", "all", 1.0] == {"labels"}
    assert once["medium", "medium", 0.5] == {"select", "score", "compact"}
    assert once["kd_cached", "random", 0.5] == {"select", "labels", "compact"}


def test_the_sweep_s_ledger_holds_the_whole_process(sweep: Path) -> None:
    (process,) = json.loads((sweep / "ledger.json").read_text())["processes"]
    assert process["wall_seconds"] == pytest.approx(sum(process["seconds"].values()))
    runs = [result_of(sweep, path.name)["ledger"]["seconds"] for path in (sweep / "runs").iterdir()]
    for phase in ("step", "data_wait", "eval"):
        assert process["seconds"][phase] == pytest.approx(sum(seconds[phase] for seconds in runs), rel=0.02)
    for phase in ("imports", "score", "labels", "select", "setup"):
        assert process["seconds"][phase] > 0


def test_tensorboard_has_the_numbers_of_the_runs_and_of_the_whole(sweep: Path) -> None:
    events = EventAccumulator(str(sweep / "tensorboard"))
    events.Reload()
    whole = [event.value for event in events.Scalars("sweep/share")]
    assert whole == sorted(whole)
    assert whole[-1] == pytest.approx(1)
    assert events.Scalars("sweep/runs_finished")[-1].value == 13
    name = "kd-random-keep0.5-seed0"
    records = [json.loads(line) for line in (sweep / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    expected = [record["top1"] for record in records if record["kind"] == "epoch"]
    found = {event.step: event.value for event in events.Scalars(f"{name}/top1")}
    assert list(found.values())[-1] == pytest.approx(expected[-1])


def test_a_finished_sweep_is_read_back_and_an_arm_can_be_added(sweep: Path, tiny_store: Store, teacher: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in sweep.rglob("result.json")}
    grid = ["--arms", "kd", "--arm", "cool:distill.temperature=2", "--keep", "0.5", "--cold"]
    run("bench", tiny_store.path, *SMALL, "--teacher", teacher, *grid, "--out", sweep)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert result_of(sweep, "cool-random-keep0.5-seed0")["temperature"] == 2
    assert len(json.loads((sweep / "ledger.json").read_text())["processes"]) == 2


def test_timing_only_trains_nothing_and_says_so_everywhere(tiny_store: Store, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "timed"
    grid = ["--arms", "plain,kd,medium,rs2,equal_time", "--keep", "1,0.5", "--set", "epochs=100", "--time-only", 2]
    done = run("bench", tiny_store.path, *SMALL, *grid, "--teacher", teacher, "--out", out)
    assert done.stdout.count("extrapolated from 2 batches in 3 short epochs") == 2 + 5
    full, half = result_of(out, "kd-all-keep1-seed0"), result_of(out, "medium-medium-keep0.5-seed0")
    assert full["samples_seen"] == 100 * 96
    assert half["samples_seen"] == 100 * 48
    assert full["top1"] is None
    assert full["train_seconds"] == pytest.approx(100 * sorted(full["epoch_seconds"])[1])
    assert not (out / "runs/kd-all-keep1-seed0/model.safetensors").exists()
    assert "extrapolated from 2 batches" in run("report", out, "--format", "md").stdout
    rows = csv.DictReader(io.StringIO(run("report", out, "--format", "csv").stdout))
    assert {row["extrapolated"] for row in rows} == {"True"}
    infobatch = ["--arms", "infobatch", "--keep", "0.5", "--time-only", 2, "--out", tmp_path / "no"]
    refused = run("bench", tiny_store.path, *SMALL, *infobatch, "--teacher", teacher, code=2)
    assert "cannot be timed from a few batches" in refused.stderr


def test_a_dry_run_estimates_every_run_and_writes_nothing(tiny_store: Store, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "none"
    grid = ["--arms", ARMS, "--keep", "1,0.5", "--seeds", 2, "--teacher", teacher, "--out", out, "--dry-run"]
    told = json.loads(run("bench", tiny_store.path, *SMALL, *grid, "--json").stdout)
    assert not out.exists()
    samples = {row["name"]: row["samples"] for row in told["runs"]}
    assert len(samples) == 2 * (3 + 8)
    assert samples["kd-all-keep1-seed0"] == 4 * 96
    assert samples["rs2-all-keep0.5-seed1"] == samples["equal_time-all-keep0.5-seed0"] == 4 * 48
    assert all(row["train_seconds"] > 0 for row in told["runs"])
    assert set(told["once"]) == {"score", "labels"}
    assert told["once"]["labels"] == pytest.approx(8 * told["once"]["score"])
    everything = sum(row["train_seconds"] + row["eval_seconds"] for row in told["runs"])
    assert told["seconds"] == pytest.approx(everything + sum(told["once"].values()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms", "kd_cached"], "give --teacher or --labels"),
        (["--arms", "plain", "--policies", "medium"], "ranks by a score"),
        (["--arms", "plain,kdd"], "did you mean 'kd'"),
        (["--arm", "kd:alpha=1"], "exists already"),
        (["--arm", "x:base=nothing"], "unknown arm 'nothing'"),
        (["--arms", "plain", "--cost", "teacher=soon"], "NAME=SECONDS"),
        (["--arms", "plain", "--reshape"], "--reshape needs"),
        (["--arms", "plain", "--arm", "x:base=plain,optimiser.lr=1"], "did you mean optimizer"),
        (["--arms", "plain", "--set", "seed=7"], "prunekd train --set seed=7"),
        (["--arms", "plain", "--arm", "x:base=plain,seed=5"], "arm 'x' sets seed=5"),
        (["--arms", "plain", "--set", "batch_size=50"], "batch_size 50 is larger than the 48 samples kept"),
        (["--arms", "plain", "--set", "model.name=resnet1"], "unknown model"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    tiny_store: Store, tmp_path: Path, words: list[str], message: str
) -> None:
    refused = run("bench", tiny_store.path, *SMALL, "--keep", "0.5", *words, "--out", tmp_path / "s", code=2)
    assert message in refused.stderr
    assert not (tmp_path / "s").exists()


def test_weights_and_biases_is_asked_for_by_name_when_absent(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # what an import then finds
    words = ["--arms", "plain", "--keep", "1", "--wandb", "project", "--out", tmp_path / "s"]
    refused = run("bench", tiny_store.path, *SMALL, *words, code=2)
    assert "pip install wandb" in refused.stderr


def test_weights_and_biases_gets_the_numbers_where_it_is_installed(tiny_store: Store, tmp_path: Path) -> None:
    require("wandb")
    words = ["--arms", "plain", "--keep", "1", "--wandb", "project", "--out", tmp_path / "s"]
    command = [sys.executable, "-m", "prunekd", "bench", tiny_store.path, *SMALL, *words]
    # it writes the last of its file when the process ends
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    subprocess.run([str(word) for word in command], check=True, env=environment, capture_output=True)
    (log,) = (tmp_path / "s/wandb").rglob("*.wandb")
    written = log.read_bytes()
    assert b"sweep/share" in written
    assert b"plain-all-keep1-seed0/top1" in written
