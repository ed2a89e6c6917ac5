"""A sweep that can be watched: its progress, and logs in TensorBoard and Weights & Biases."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from prunekd.common.distributed import World
from prunekd.common.ledger import Ledger
from prunekd.sweep.grid import PlannedRun, SweepSpec, plan_runs
from prunekd.sweep.logs import Log, TensorBoardLog, WandbLog
from prunekd.sweep.progress import RunState, SweepProgress
from prunekd.sweep.run import run_spec, run_sweep
from prunekd.sweep.timing import MEASURED, samples_per_epoch, samples_per_run

logger = logging.getLogger(__name__)

# The sweep's progress and the run that reported last; None before the first report.
Watch = Callable[[SweepProgress, RunState | None], None]


def train_sweep(
    spec: SweepSpec, world: World, *, ledger: Ledger, watch: Watch, wandb: str | None = None
) -> list[dict[str, Any]]:
    """Run the sweep, logged in its folder, and return the contents of result.json of its runs in order.

    Args:
        watch: called once before anything is trained and after every report of a run.
        wandb: a project of Weights & Biases to log to as well.

    Raises:
        ValueError, RuntimeError: see run_sweep and WandbLog.
    """
    spec.check_inputs()
    runs = plan_runs(spec)
    finished = [run.name for run in runs if (spec.out / "runs" / run.name / "result.json").exists()]
    logger.info(f"{len(runs)} run{'s' * (len(runs) > 1)}: {', '.join(run.name for run in runs)}")
    if spec.time_only:
        logger.info(
            f"timing only: what follows is extrapolated from {spec.time_only} batches an epoch, nothing is trained"
        )
    progress = SweepProgress([(run, *_extent(spec, run)) for run in runs], finished)
    logs = _open_logs(spec, wandb)

    def update(run: PlannedRun, values: dict[str, Any]) -> None:
        state = progress.update(run, values)
        for log in logs:
            log.write(run.name, values["step"], state.numbers())
            log.write("sweep", round(100 * len(runs) * progress.share), progress.numbers())
        watch(progress, state)

    try:
        watch(progress, None)
        return run_sweep(spec, world, progress=update, ledger=ledger)
    finally:
        for log in logs:
            log.close()


def _extent(spec: SweepSpec, run: PlannedRun) -> tuple[int, int]:
    """Samples and epochs that a run trains for in all, or in its short epochs if it is only timed."""
    if spec.time_only:
        return (1 + MEASURED) * spec.time_only * spec.recipe.batch_size, 1 + MEASURED
    total = len(spec.store.split("train"))
    kept = total if run.policy == "all" else round(run.keep * total)
    planned = run_spec(replace(spec, cached=None, class_scale=None), run, None)
    samples = max(1, samples_per_run(planned, kept))
    return samples, -(-samples // max(1, samples_per_epoch(planned, kept)))


def _open_logs(spec: SweepSpec, wandb: str | None) -> list[Log]:
    logs: list[Log] = []
    if wandb:
        config = {"recipe": spec.recipe.to_dict(), "arms": list(spec.used_arms), "keeps": list(spec.keeps)}
        logs.append(WandbLog(wandb, spec.out.name, spec.out / "wandb", config))
    return [*logs, TensorBoardLog(spec.out / "tensorboard")]
