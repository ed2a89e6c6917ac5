"""The runs of a seed take turns on one device, epoch by epoch.

Turns make drift of the machine (heat, other users) affect all arms alike, so their ratios hold on a noisy machine.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prunekd.common.distributed import World
from prunekd.common.files import write_json
from prunekd.common.ledger import Ledger
from prunekd.sweep.grid import PlannedRun, SweepSpec
from prunekd.sweep.timing import Timed, extrapolate, shorten
from prunekd.training import RunSpec, Trainer
from prunekd.training.readers import Readers, open_readers
from prunekd.training.signals import Interrupted, Requests

Progress = Callable[[PlannedRun, dict[str, Any]], None]


def train_in_turns(
    spec: SweepSpec,
    todo: Sequence[PlannedRun],
    run_specs: Sequence[RunSpec],
    world: World,
    ledger: Ledger,
    progress: Progress,
) -> None:
    """Train the runs `todo`, described by `run_specs`, to their ends; those with a checkpoint go on from it.

    Raises:
        RuntimeError, Interrupted: stopped by SIGTERM, or Ctrl-C; every run that had begun has a checkpoint.
    """
    readers = open_readers(run_specs[0], world)
    trainers: list[Trainer] = []
    requests = Requests()
    try:
        for run, settings in zip(todo, run_specs, strict=True):
            trainer = Trainer(settings, world, resume="auto", readers=readers, ledger=Ledger(ledger))
            trainer.requests = requests  # a signal is meant for the whole sweep
            trainer.on_progress(partial(progress, run))
            trainers.append(trainer)
        with requests.listening():
            for trainer in trainers:
                if trainer.finished:
                    trainer.finish()  # killed after its last step, before its result was written
            for trainer in _turns(trainers):
                if requests.stop:
                    raise requests.stopped("")
                if spec.cold:
                    drop_page_cache(spec.store.path / "train.beton")
                trainer.train_epoch()
                if trainer.finished:
                    trainer.finish()
    except (RuntimeError, Interrupted) as error:
        if not requests.stop:
            raise
        saved = [_save(trainer) for trainer in trainers if trainer.global_step and not trainer.finished]
        raise requests.stopped(
            f" with {len(saved)} runs under way, each with a checkpoint; give the same command to go on"
        ) from error
    finally:
        for trainer in trainers:
            trainer.close()
        readers.close()


def _save(trainer: Trainer) -> Path:
    with trainer.randomness.active():
        return trainer.checkpoint()


def time_in_turns(
    spec: SweepSpec,
    todo: Sequence[PlannedRun],
    run_specs: Sequence[RunSpec],
    world: World,
    ledger: Ledger,
    progress: Progress,
) -> None:
    """Time short epochs of each run in turns and write the extrapolated results."""
    opened = open_readers(run_specs[0], world)
    timed: list[Timed] = []
    try:
        for run, settings in zip(todo, run_specs, strict=True):
            short = shorten(settings, spec.out / "timing" / run.name, spec.time_only)
            # without a validation split nothing is evaluated: a few batches teach nothing worth measuring
            trainer = Trainer(short, world, readers=Readers(opened.train, None), ledger=Ledger(ledger))
            trainer.on_progress(partial(progress, run))
            timed.append(Timed(run=run, full=settings, trainer=trainer))
        for trainer in _turns([item.trainer for item in timed]):
            if spec.cold:
                drop_page_cache(spec.store.path / "train.beton")
            trainer.train_epoch()
        for item in timed:
            write_json(item.full.out / "result.json", extrapolate(item))
    finally:
        for item in timed:
            item.trainer.close()
        opened.close()


def _turns(trainers: Sequence[Trainer]) -> Iterator[Trainer]:
    """Yield unfinished trainers in turn until all are finished."""
    waiting = list(trainers)
    while waiting:
        for trainer in waiting:
            if not trainer.finished:
                yield trainer
        waiting = [trainer for trainer in waiting if not trainer.finished]


def drop_page_cache(path: Path) -> None:
    """Let the operating system forget the cached pages of a file; needs no rights beyond reading it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
