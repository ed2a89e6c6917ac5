"""A sweep: one recipe over keep ratios, arms, policies and seeds, with the runs of a seed taking turns by epoch.

Turns make drift of the machine (heat, other users) hit all arms alike, so their ratios hold on a noisy machine.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from prunekd.common.files import read_json, write_json
from prunekd.common.machine import describe_machine
from prunekd.common.registry import unknown
from prunekd.distill import OnlineTeacher
from prunekd.pruning.policies import POLICIES
from prunekd.pruning.scores import Scores
from prunekd.pruning.subset import Subset, read_subset, select, write_subset
from prunekd.store.index import Store
from prunekd.training import Recipe, RunSpec, Trainer, World
from prunekd.training.readers import open_readers
from prunekd.training.run import IDENTITY

ARMS = {
    "plain": "labels alone",
    "kd": "distillation from the teacher",
    "equal_time": "distillation on all samples for r x epochs: the same time as kd at r, spent without pruning",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """What a sweep trains.

    keeps are in (0, 1]; policies choose the samples of the pruned runs; scores are needed where a policy needs them;
    costs are seconds spent once before the sweep (score, teacher) and enter the honest speed-up.
    """

    store: Store
    recipe: Recipe
    out: Path
    keeps: tuple[float, ...]
    arms: tuple[str, ...]
    policies: tuple[str, ...] = ("random",)
    seeds: tuple[int, ...] = (0,)
    teacher: OnlineTeacher | None = None
    teacher_info: dict[str, Any] | None = None
    class_scale: Tensor | None = None
    scores: Scores | None = None
    reader: str = "native"
    workers: int | None = None
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for arm in self.arms:
            if arm not in ARMS:
                raise unknown("arm", arm, ARMS)
            if arm != "plain" and self.teacher is None:
                raise ValueError(f"arm {arm!r} distils and needs a teacher; give --teacher, or only the arm plain")
        for policy in self.policies:
            if policy not in POLICIES:
                raise unknown("policy", policy, POLICIES)
            if POLICIES[policy].needs_score and self.scores is None:
                raise ValueError(f"policy {policy!r} ranks by a score; give --scores or a --teacher to score with")
        for keep in self.keeps:
            if not 0 < keep <= 1:
                raise ValueError(f"keep is {keep}; a keep ratio is the fraction kept, in (0, 1]")
        if "val" not in self.store.splits:
            raise ValueError(
                f"{self.store.path} has no validation split to measure accuracy on; "
                "convert a source with val/, or use `prunekd convert --val-fraction 0.1`"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run of a sweep; `epochs` differ from the recipe's for the equal-time control only."""

    name: str
    arm: str
    policy: str
    keep: float
    seed: int
    epochs: int


def plan_runs(spec: SweepSpec) -> list[PlannedRun]:
    """All runs of a sweep, seed by seed. At keep 1 there is nothing to select, so the policy is `all`."""
    runs = []
    for seed in spec.seeds:
        for keep in spec.keeps:
            for arm in spec.arms:
                if arm == "equal_time" and keep == 1:
                    continue  # it would be kd at keep 1 again
                whole = keep == 1 or arm == "equal_time"
                epochs = max(1, round(keep * spec.recipe.epochs)) if arm == "equal_time" else spec.recipe.epochs
                for policy in ("all",) if whole else spec.policies:
                    name = f"{arm}-{policy}-keep{keep:g}-seed{seed}"
                    runs.append(PlannedRun(name=name, arm=arm, policy=policy, keep=keep, seed=seed, epochs=epochs))
    return runs


def run_sweep(
    spec: SweepSpec,
    world: World,
    *,
    progress: Callable[[PlannedRun, dict[str, Any]], None] = lambda run, values: None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Train what is not yet trained of the sweep and return the results of all runs.

    Finished runs (result.json) are kept; unfinished ones go on from their newest checkpoint.

    Raises:
        ValueError: the folder holds another sweep; see SweepSpec and Trainer.
    """
    runs = plan_runs(spec)
    costs = dict(spec.costs)
    subsets = _select_all(spec, runs, costs)
    _write_sweep_file(spec, runs, costs)
    for seed in spec.seeds:
        todo = [r for r in runs if r.seed == seed and not (spec.out / "runs" / r.name / "result.json").exists()]
        if todo:
            _train_in_turns(spec, todo, subsets, world, progress, say)
    return [read_json(spec.out / "runs" / run.name / "result.json") for run in runs]


def _train_in_turns(
    spec: SweepSpec,
    todo: Sequence[PlannedRun],
    subsets: dict[tuple[str, float, int], Subset],
    world: World,
    progress: Callable[[PlannedRun, dict[str, Any]], None],
    say: Callable[[str], None],
) -> None:
    run_specs = [_run_spec(spec, run, subsets.get((run.policy, run.keep, run.seed))) for run in todo]
    readers = open_readers(run_specs[0], world)
    trainers: list[Trainer] = []
    try:
        for run, run_spec in zip(todo, run_specs, strict=True):
            trainer = Trainer(run_spec, world, resume="auto", readers=readers, say=say)
            trainer.on_progress(partial(progress, run))
            trainers.append(trainer)
        for trainer in _turns(trainers):
            trainer.train_epoch()
            if trainer.finished:
                trainer.finish()
    finally:
        for trainer in trainers:
            trainer.close()
        readers.close()


def _turns(trainers: Sequence[Trainer]) -> Iterator[Trainer]:
    """Yield unfinished trainers in turn until all are finished."""
    waiting = list(trainers)
    while waiting:
        for trainer in waiting:
            if not trainer.finished:
                yield trainer
        waiting = [trainer for trainer in waiting if not trainer.finished]


def _run_spec(spec: SweepSpec, run: PlannedRun, subset: Subset | None) -> RunSpec:
    recipe = replace(spec.recipe, seed=run.seed, epochs=run.epochs)
    distils = run.arm != "plain"
    return RunSpec(
        store=spec.store,
        recipe=recipe,
        out=spec.out / "runs" / run.name,
        subset=subset,
        teacher=spec.teacher if distils else None,
        teacher_info=spec.teacher_info if distils else None,
        class_scale=spec.class_scale if distils else None,
        reader=spec.reader,
        workers=spec.workers,
        labels={"arm": run.arm, "policy": run.policy, "keep": run.keep},
    )


def _select_all(
    spec: SweepSpec, runs: Sequence[PlannedRun], costs: dict[str, dict[str, Any]]
) -> dict[tuple[str, float, int], Subset]:
    """Select (or read back) every subset the runs need, and book the time of one selection on average."""
    subsets: dict[tuple[str, float, int], Subset] = {}
    seconds = []
    for run in runs:
        key = (run.policy, run.keep, run.seed)
        if run.policy == "all" or key in subsets:
            continue
        path = spec.out / "subsets" / f"{run.policy}-keep{run.keep:g}-seed{run.seed}.parquet"
        if path.exists():
            subsets[key] = read_subset(path)
            subsets[key].check(spec.store)
            continue
        started = time.perf_counter()
        subsets[key] = select(spec.store, policy=run.policy, keep=run.keep, seed=run.seed, scores=spec.scores)
        write_subset(path, subsets[key])
        seconds.append(time.perf_counter() - started)
    if seconds:
        costs["select"] = {"seconds": sum(seconds) / len(seconds), "count": len(seconds)}
    return subsets


def _write_sweep_file(spec: SweepSpec, runs: Sequence[PlannedRun], costs: dict[str, dict[str, Any]]) -> None:
    file = spec.out / "sweep.json"
    described: dict[str, Any] = {
        "format": "prunekd-sweep",
        "version": 1,
        "store": {
            "path": str(spec.store.path),
            "fingerprint": spec.store.fingerprint,
            "train": len(spec.store.split("train")),
            "val": len(spec.store.split("val")),
            "classes": len(spec.store.classes),
        },
        "recipe": spec.recipe.to_dict(),
        "arms": list(spec.arms),
        "policies": list(spec.policies),
        "keeps": list(spec.keeps),
        "seeds": list(spec.seeds),
        "teacher": spec.teacher_info,
        "reshaping": spec.class_scale is not None,
        "costs": costs,
        "machine": describe_machine(),
        "runs": [run.name for run in runs],
    }
    if file.exists():
        before = read_json(file)
        for key in (k for k in IDENTITY if k in described):
            if before.get(key) != described[key]:
                raise ValueError(f"{spec.out} holds a sweep with another {key}; choose another --out")
        described["costs"] = before["costs"] | costs
        described["runs"] = list(dict.fromkeys([*before["runs"], *described["runs"]]))
        for key in ("arms", "policies", "keeps", "seeds"):
            described[key] = list(dict.fromkeys([*before[key], *described[key]]))
    write_json(file, described)
