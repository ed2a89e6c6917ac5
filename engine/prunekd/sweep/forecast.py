"""What a sweep would take, from a few batches of each kind of run: for `prunekd bench --dry-run`."""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from prunekd.common.distributed import World
from prunekd.common.pixels import to_input
from prunekd.input import EpochPlan
from prunekd.sweep.arms import Arm
from prunekd.sweep.grid import PlannedRun, SweepSpec, plan_runs
from prunekd.sweep.run import run_spec
from prunekd.sweep.timing import samples_per_run, shorten
from prunekd.training import Trainer
from prunekd.training.evaluate import DTYPES, autocast
from prunekd.training.readers import Readers, open_readers

logger = logging.getLogger(__name__)

REPEATS = 3  # timed passes, after one that warms up


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One run: samples it trains on in all, and seconds of training and of evaluation."""

    run: PlannedRun
    samples: int
    train_seconds: float
    eval_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Estimates of the runs that are left to do, seconds to be spent once by name, and what this rests on.

    finished: runs of the sweep that are done already.
    """

    runs: tuple[Estimate, ...]
    once: dict[str, float]
    note: str
    finished: int = 0

    @property
    def seconds(self) -> float:
        """Of everything together."""
        return sum(item.train_seconds + item.eval_seconds for item in self.runs) + sum(self.once.values())

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        runs = [
            {
                "name": item.run.name,
                "epochs": item.run.epochs,
                "samples": item.samples,
                "train_seconds": item.train_seconds,
                "eval_seconds": item.eval_seconds,
            }
            for item in self.runs
        ]
        totals = {"seconds": self.seconds, "finished": self.finished, "note": self.note}
        return {"runs": runs, "once": self.once, **totals}


def forecast(
    spec: SweepSpec,
    world: World,
    *,
    runs: Sequence[PlannedRun],
    batches: int = 4,
    passes: dict[str, int] | None = None,
) -> Forecast:
    """Time a few batches of each kind of run in a temporary folder and scale them to the sweep.

    A kind is what costs the same per sample: an arm's settings and whether a teacher runs in the step. Soft labels need
    not be there: such a run is timed without them.

    Args:
        runs: those to estimate.
        batches: steps of a short epoch.
        passes: how often the teacher will go over all training samples beforehand, by the cost's name.
    """
    first = plan_runs(replace(spec, keeps=(1.0,)))
    with tempfile.TemporaryDirectory() as folder:
        temporary = replace(spec, out=Path(folder), cached=None)
        costs: dict[tuple[object, ...], tuple[float, float]] = {}
        readers = open_readers(run_spec(temporary, first[0], None), world)
        try:
            for run in runs:
                arm = spec.known_arms[run.arm]
                if _kind(arm) not in costs:
                    logger.info(f"timing {batches} batches of {arm.name} in {1 + REPEATS} short epochs")
                    costs[_kind(arm)] = _seconds_per_sample(temporary, run, world, readers, batches)
            teacher = _teacher_seconds(temporary, world, readers) if passes else 0.0
        finally:
            readers.close()
    validation = len(spec.store.split("val").ids) if "val" in spec.store.splits and not spec.time_only else 0
    estimates = []
    for run in runs:
        train, test = costs[_kind(spec.known_arms[run.arm])]
        kept = max(spec.recipe.batch_size, round(run.keep * len(spec.store.split("train"))))
        whole = run_spec(temporary, run, None)
        samples = samples_per_run(whole, len(whole.store.split("train")) if run.policy == "all" else kept)
        passes_over_val = -(-run.epochs // _eval_every(spec, run))
        estimates.append(
            Estimate(
                run=run,
                samples=samples,
                train_seconds=train * samples,
                eval_seconds=test * validation * passes_over_val,
            )
        )
    once = {name: count * teacher * len(spec.store.split("train")) for name, count in (passes or {}).items()}
    note = (
        f"Estimated from {batches} batches in each of {REPEATS} short epochs of every kind of run, warm page cache; "
        "a policy that leaves out samples by their losses is taken to see all, cached soft labels to cost nothing."
    )
    return Forecast(runs=tuple(estimates), once=once, note=note)


def _kind(arm: Arm) -> tuple[object, ...]:
    return arm.teacher == "online", tuple(item for item in arm.settings if not item.startswith("dynamic."))


def _eval_every(spec: SweepSpec, run: PlannedRun) -> int:
    settings = spec.recipe.eval
    return max(1, round(settings.every_epochs / run.keep)) if settings.scale else settings.every_epochs


def _seconds_per_sample(
    spec: SweepSpec, run: PlannedRun, world: World, readers: Readers, batches: int
) -> tuple[float, float]:
    """Of training and of evaluation, medians of REPEATS."""
    arm = spec.known_arms[run.arm]
    bare = replace(arm, teacher="none") if arm.teacher == "cached" else arm
    temporary = replace(spec, own_arms=(*spec.own_arms, replace(bare, name="timed")))
    short = shorten(run_spec(temporary, replace(run, arm="timed"), None), spec.out / run.name, batches)
    trainer = Trainer(short, world, readers=Readers(readers.train, None))
    try:
        while not trainer.finished:
            trainer.train_epoch()
        train = median(record["seconds"] / record["samples"] for record in trainer.epochs[1:])
        return train, _eval_seconds(trainer, world, readers)
    finally:
        trainer.close()


def _eval_seconds(trainer: Trainer, world: World, readers: Readers) -> float:
    """Seconds to read one validation image and to run the student on it; 0 without a validation split."""
    if readers.val is None:
        return 0.0
    recipe = trainer.spec.recipe
    split = trainer.spec.store.split("val")
    ids = split.ids[: 2 * recipe.eval.batch_size]
    plan = EpochPlan(split=split, ids=ids, batch_size=recipe.eval.batch_size, view=recipe.eval_view)
    model = trainer.learner.model
    model.eval()

    def once() -> None:
        with torch.no_grad(), autocast(world, recipe.precision):
            for batch in readers.val.epoch(plan):  # type: ignore[union-attr]
                images = batch.images.to(world.device)
                float(model(to_input(images, recipe.mean, recipe.std, DTYPES[recipe.precision])).sum())

    return _median_seconds(once) / len(ids)


def _teacher_seconds(spec: SweepSpec, world: World, readers: Readers) -> float:
    """Seconds to read one training image and to run the teacher on it."""
    assert spec.teacher is not None
    teacher, recipe = spec.teacher, spec.recipe
    split = spec.store.split("train")
    ids = split.ids[: 2 * recipe.batch_size]
    plan = EpochPlan(split=split, ids=ids, batch_size=recipe.batch_size, view=recipe.train_view)

    def once() -> None:
        for batch in readers.train.epoch(plan):
            float(teacher(batch.images.to(world.device)).sum())

    return _median_seconds(once) / len(ids)


def _median_seconds(work: Callable[[], None]) -> float:
    seconds = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])
