"""The sweep: which runs there are, turns, resuming, refusing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunekd.common.distributed import World
from prunekd.distill import OnlineTeacher, TeacherSettings
from prunekd.models import ModelCard, create_model
from prunekd.store import Store
from prunekd.sweep.run import PlannedRun, SweepSpec, plan_runs, run_sweep
from prunekd.training import Trainer, load_recipe

WORLD = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def teacher(tiny_store: Store) -> OnlineTeacher:
    card = ModelCard(model="cifar_resnet8", num_classes=4, size=12, mean=(0.5,) * 3, std=(0.5,) * 3)
    return OnlineTeacher(create_model("cifar_resnet8", 4, seed=0), card, TeacherSettings(dtype=torch.float32))


def sweep(store: Store, out: Path, teacher: OnlineTeacher | None, **more: object) -> SweepSpec:
    small = ["epochs=4", "batch_size=16", "precision=fp32", "train_view.size=12", "eval_view.size=12"]
    values = {"keeps": (1.0, 0.5), "arms": ("plain", "kd", "equal_time"), "seeds": (0, 1), **more}
    return SweepSpec(store=store, recipe=load_recipe("demo", small), out=out, teacher=teacher, **values)  # type: ignore[arg-type]


def test_the_grid_has_each_run_once_and_the_control_its_share_of_epochs(
    tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path
) -> None:
    runs = plan_runs(sweep(tiny_store, tmp_path, teacher, keeps=(1.0, 0.5, 0.25)))
    assert len({run.name for run in runs}) == len(runs)
    for seed in (0, 1):
        mine = {(r.arm, r.keep): r for r in runs if r.seed == seed}
        both = {(arm, keep) for arm in ("plain", "kd") for keep in (1.0, 0.5, 0.25)}
        assert set(mine) == both | {("equal_time", 0.5), ("equal_time", 0.25)}
        assert mine["equal_time", 0.5].epochs == 2
        assert mine["equal_time", 0.25].epochs == 1
        assert mine["plain", 1.0].policy == mine["equal_time", 0.5].policy == "all"
        assert mine["kd", 0.5].policy == "random"


def test_a_sweep_trains_in_turns_and_books_what_it_did(
    tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path
) -> None:
    spec = sweep(tiny_store, tmp_path / "sweep", teacher)
    epochs: list[tuple[int, str, int]] = []

    def progress(run: PlannedRun, values: dict[str, object]) -> None:
        if values["kind"] == "epoch":
            epochs.append((run.seed, run.name, int(values["epoch"])))  # type: ignore[call-overload]

    results = run_sweep(spec, WORLD, progress=progress)
    assert [r["name"] for r in results] == [run.name for run in plan_runs(spec)]
    first_round = [name for seed, name, epoch in epochs if seed == 0 and epoch == 0]
    assert [name for _, name, _ in epochs[: len(first_round)]] == first_round  # all take their first turn first
    by_name = {r["name"]: r for r in results}
    half, whole = by_name["kd-random-keep0.5-seed1"], by_name["kd-all-keep1-seed1"]
    control = by_name["equal_time-all-keep0.5-seed1"]
    assert half["samples_seen"] == 4 * 48 == control["samples_seen"]
    assert whole["samples_seen"] == 4 * 96
    assert (control["arm"], control["keep"], control["samples_kept"]) == ("equal_time", 0.5, 96)
    assert half["bytes_read"] == half["payload_bytes"] == 4 * 48 * 12 * 12 * 3
    facts = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert facts["costs"]["select"]["count"] == 2
    assert facts["runs"] == [run.name for run in plan_runs(spec)]

    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "sweep/runs").glob("*/result.json")}
    wider = replace(spec, keeps=(1.0, 0.5, 0.25), seeds=(0,))
    more = run_sweep(wider, WORLD)
    assert {r["keep"] for r in more} == {1.0, 0.5, 0.25}
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    facts = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert len(facts["runs"]) == 10 + 3
    assert facts["seeds"] == [0, 1]
    with pytest.raises(ValueError, match="holds a sweep with another recipe"):
        run_sweep(replace(spec, recipe=replace(spec.recipe, epochs=5)), WORLD)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"arms": ("plane",)}, "did you mean 'plain'"),
        ({"policies": ("medum",)}, "did you mean 'medium'"),
        ({"keeps": (1.5,)}, r"keep is 1\.5"),
        ({"keeps": (0.0,)}, r"keep is 0\.0"),
    ],
)
def test_wrong_grids_are_refused_by_name(
    tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path, more: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(tiny_store, tmp_path, teacher, **more)


def test_distilling_arms_need_a_teacher(tiny_store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        run_sweep(sweep(tiny_store, tmp_path, None), WORLD)
    with pytest.raises(ValueError, match="needs soft labels"):
        run_sweep(sweep(tiny_store, tmp_path, None, arms=("kd_cached",)), WORLD)
    assert not list(tmp_path.iterdir())
    sweep(tiny_store, tmp_path, None, arms=("plain",)).check_inputs()


def test_a_sweep_killed_before_a_finished_run_wrote_its_result_goes_on(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = load_recipe("demo", ["epochs=1", "batch_size=16", "train_view.size=12", "checkpoint.every_steps=1"])
    spec = replace(sweep(tiny_store, tmp_path / "sweep", None, arms=("plain",), seeds=(0,)), recipe=often)

    def killed(trainer: Trainer) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "finish", killed)
        with pytest.raises(OSError, match="killed"):
            run_sweep(spec, WORLD)
    results = run_sweep(spec, WORLD)
    assert [result["name"] for result in results] == ["plain-all-keep1-seed0", "plain-random-keep0.5-seed0"]
    assert [result["samples_seen"] for result in results] == [96, 48]
