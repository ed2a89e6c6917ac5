"""A sweep: one recipe over keep ratios, arms, policies and seeds, with the runs of a seed taking turns by epoch."""

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunekd.common.distributed import World
from prunekd.common.files import Kind, read_json, require_keys, write_json
from prunekd.common.ledger import Ledger
from prunekd.common.machine import describe_machine, now
from prunekd.pruning import Subset, read_subset, select, write_subset
from prunekd.sweep.arms import ARMS, Arm
from prunekd.sweep.grid import WHOLE, PlannedRun, SweepSpec, plan_runs
from prunekd.sweep.turns import Progress, time_in_turns, train_in_turns
from prunekd.training import RunSpec
from prunekd.training.outcome import RESULT
from prunekd.training.recipe import adjust
from prunekd.training.run import INPUTS, identity

SWEEP_FILE, LEDGER_FILE = "sweep.json", "ledger.json"
# what sweep.json holds in every version, and what some versions write beside it
SWEEP: dict[str, Kind] = {
    "runs": list, "arms": list, "policies": list, "keeps": list, "seeds": list, "costs": dict, "recipe": dict,
    "store": dict,
}  # fmt: skip
SAME = ("recipe", "store", "teacher", "reshaping", "time_only", "cold")  # for all commands on one sweep
SWEEP_MORE: dict[str, Kind] = {"arm_settings": dict, "commands": list, "machine": dict}

__all__ = ["ARMS", "Arm", "PlannedRun", "SweepSpec", "plan_runs", "run_sweep"]


def run_sweep(
    spec: SweepSpec,
    world: World,
    *,
    progress: Progress = lambda run, values: None,
    ledger: Ledger | None = None,
) -> list[dict[str, Any]]:
    """Train (or time) what is not yet done of the sweep and return the results of all runs.

    Finished runs (result.json) are kept; unfinished ones go on from their newest checkpoint. ledger.json says where
    the wall-clock of each process that worked on the sweep went, as far as `ledger` has it.

    Raises:
        ValueError: the folder holds another sweep; see SweepSpec and Trainer.
        RuntimeError, Interrupted: stopped by SIGTERM, or Ctrl-C; every run that had begun has a checkpoint.
    """
    spec.check_inputs()
    spec.check_keeps()
    runs = plan_runs(spec)
    costs = dict(spec.costs)
    ledger, began = ledger or Ledger(), now()
    _processes_before(spec)  # a damaged file is named before anything is trained
    try:
        with ledger.phase("select"):
            subsets = _select_all(spec, runs, costs)
        _write_sweep_file(spec, runs, costs)
        for seed in spec.seeds:
            todo = [run for run in runs if run.seed == seed and not _result_file(spec, run).exists()]
            if not todo:
                continue
            run_specs = [run_spec(spec, run, subsets.get((run.policy, run.keep, run.seed))) for run in todo]
            work = time_in_turns if spec.time_only else train_in_turns
            work(spec, todo, run_specs, world, ledger, progress)
    finally:
        if spec.out.is_dir():
            mine = {**ledger.to_dict(), "host": platform.node(), "pid": os.getpid(), "began": began, "ended": now()}
            write_json(spec.out / LEDGER_FILE, {"processes": [*_processes_before(spec), mine]})
    return [read_json(_result_file(spec, run), RESULT) for run in runs]


def run_spec(spec: SweepSpec, run: PlannedRun, subset: Subset | None) -> RunSpec:
    """What the trainer is told of one run of a sweep."""
    arm = spec.known_arms[run.arm]
    budget = spec.recipe.budget
    share = run.keep if arm.fewer_epochs else 1.0
    limits = [f"budget.{name}={round(share * n)}" for name in ("steps", "samples") if (n := getattr(budget, name))]
    recipe = adjust(spec.recipe, [f"seed={run.seed}", f"epochs={run.epochs}", *limits, *arm.overrides(run.keep)])
    online = arm.teacher == "online"
    return RunSpec(
        store=spec.store,
        recipe=recipe,
        out=spec.out / "runs" / run.name,
        subset=subset,
        teacher=spec.teacher if online else None,
        cached=spec.cached if arm.teacher == "cached" else None,
        class_scale=spec.class_scale if arm.distils else None,
        reader=spec.reader,
        on_error=spec.on_error,
        workers=spec.workers,
        tags={"arm": run.arm, "policy": run.policy, "keep": run.keep},
    )


def _processes_before(spec: SweepSpec) -> list[dict[str, Any]]:
    """The ledgers of earlier processes."""
    file = spec.out / LEDGER_FILE
    try:
        return list(read_json(file, {"processes": list})["processes"]) if file.exists() else []
    except ValueError as error:
        raise ValueError(f"{error}; it holds the seconds of earlier processes alone: remove it to go on") from None


def _result_file(spec: SweepSpec, run: PlannedRun) -> Path:
    return spec.out / "runs" / run.name / "result.json"


def _select_all(
    spec: SweepSpec, runs: Sequence[PlannedRun], costs: dict[str, dict[str, Any]]
) -> dict[tuple[str, float, int], Subset]:
    """Select (or read back) every subset the runs need, and book the time of one selection on average."""
    subsets: dict[tuple[str, float, int], Subset] = {}
    seconds = []
    for run in runs:
        key = (run.policy, run.keep, run.seed)
        if run.policy == WHOLE or key in subsets:
            continue
        path = spec.out / "subsets" / f"{run.policy}-keep{run.keep:g}-seed{run.seed}.parquet"
        if path.exists():
            subsets[key] = read_subset(path)
            subsets[key].check(spec.store, "train")
            continue
        started = time.perf_counter()
        subsets[key] = select(spec.store, policy=run.policy, keep=run.keep, seed=run.seed, scores=spec.scores)
        write_subset(path, subsets[key])
        seconds.append(time.perf_counter() - started)
    if seconds:
        costs["select"] = {"seconds": sum(seconds) / len(seconds), "count": len(seconds)}
    return subsets


def check_same_sweep(spec: SweepSpec) -> None:
    """Raise ValueError if the folder holds another sweep, or a damaged one; logit reshaping may not be known yet."""
    before = _sweep_before(spec)
    if before is not None:
        _refuse_another(spec, before, [key for key in SAME if key != "reshaping"])


def _sweep_before(spec: SweepSpec) -> dict[str, Any] | None:
    file = spec.out / SWEEP_FILE
    if not file.exists():
        return None
    before: dict[str, Any] = read_json(file, SWEEP)
    require_keys(before, {key: kind for key, kind in SWEEP_MORE.items() if key in before}, str(file))
    return before


def _refuse_another(spec: SweepSpec, before: dict[str, Any], keys: Sequence[str]) -> None:
    described = _describe(spec, (), {})
    for key in keys:
        old, new = before.get(key, described[key]), described[key]
        if key in INPUTS:
            old, new = identity(old, new)
        if old != new:
            raise ValueError(f"{spec.out} holds a sweep with another {key}; choose another --out")
    for name, settings in before.get("arm_settings", {}).items():
        if described["arm_settings"].get(name, settings) != settings:
            raise ValueError(f"{spec.out} holds a sweep with another arm {name!r}; choose another name for it")


def _write_sweep_file(spec: SweepSpec, runs: Sequence[PlannedRun], costs: dict[str, dict[str, Any]]) -> None:
    described = _describe(spec, runs, costs)
    before = _sweep_before(spec)
    if before is not None:
        _refuse_another(spec, before, SAME)
        described["arm_settings"] = before.get("arm_settings", {}) | described["arm_settings"]
        described["costs"] = before["costs"] | costs
        described["commands"] = [*before.get("commands", []), *described["commands"]]
        for key in ("runs", "arms", "policies", "keeps", "seeds"):
            described[key] = list(dict.fromkeys([*before[key], *described[key]]))
    write_json(spec.out / SWEEP_FILE, described)


def _describe(spec: SweepSpec, runs: Sequence[PlannedRun], costs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    machine, names = describe_machine(), [run.name for run in runs]
    return {
        "format": "prunekd-sweep",
        "version": 1,
        "store": {
            "path": str(spec.store.path),
            "fingerprint": spec.store.fingerprint,
            "train": len(spec.store.split("train")),
            "val": len(spec.store.split("val")) if "val" in spec.store.splits else 0,
            "classes": len(spec.store.classes),
        },
        "recipe": spec.recipe.to_dict(),
        "arms": list(spec.used_arms),
        "arm_settings": {name: arm.to_dict() for name, arm in spec.used_arms.items()},
        "policies": list(spec.used_policies),
        "keeps": list(spec.keeps),
        "seeds": list(spec.seeds),
        "teacher": None if spec.teacher is None else spec.teacher.describe(),
        "reshaping": spec.class_scale is not None,
        "time_only": spec.time_only,
        "cold": spec.cold,
        "costs": costs,
        "machine": machine,
        "commands": [{"command": machine["command"], "started": machine["started"], "runs": names}],
        "runs": names,
    }
