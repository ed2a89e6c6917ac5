"""Train a student."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from prunekd.api.stores import AnyStore, AnySubset, open_store
from prunekd.api.teachers import Device, TeacherLike, device_of
from prunekd.common.distributed import open_world
from prunekd.common.ledger import Ledger
from prunekd.distill import CachedTeacher
from prunekd.distill.opening import as_teacher
from prunekd.pruning import as_subset
from prunekd.pruning.scores import Scores
from prunekd.pruning.training_dynamics import DYNAMICS
from prunekd.training import Recipe, RunSpec, Trainer
from prunekd.training.inputs import as_labels, class_scale
from prunekd.training.outcome import RESULT_FILE, Run
from prunekd.training.recipe import Settings, as_recipe
from prunekd.training.run import check_folder

logger = logging.getLogger(__name__)


def train(
    store: AnyStore,
    *,
    recipe: Recipe | str | Path,
    out: str | Path,
    settings: Settings | None = None,
    subset: AnySubset | None = None,
    teacher: TeacherLike | None = None,
    labels: CachedTeacher | str | Path | None = None,
    reshape: Scores | str | Path | None = None,
    model: nn.Module | None = None,
    track: str | Sequence[str] = (),
    reader: str = "native",
    on_error: str = "raise",
    workers: int | None = None,
    device: Device = "auto",
    resume: str | Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    ledger: Ledger | None = None,
) -> Run:
    """Train a student on the training split of a store, with or without a teacher.

    Without a teacher or soft labels the student learns from the classes alone; that is also how a teacher is made.
    Processes of one process group train together; every one of them must call this.

    Args:
        store: a Store or its path.
        recipe: a recipe's name, a YAML file or a Recipe.
        out: folder of the run: weights, figures, logs, checkpoints.
        settings: changes of the recipe by dotted key, such as {"epochs": 30, "optimizer.lr": 0.1}.
        subset: samples to train on: a Subset, its path, or ids int64 (k,); None is all.
        teacher: as `open_teacher` takes it; one that is not open yet runs in bfloat16.
        labels: soft labels (a CachedTeacher or its folder) in place of a teacher.
        reshape: scores whose class statistics reshape the teacher's logits; None leaves them.
        model: a student of your own in place of the recipe's model: takes normalized images (B, 3, H, W), returns
            logits (B, C) as a tensor. It is trained in place, moved to the device, and left in eval mode. With
            ema.decay it holds the last weights, and the run's folder their average.
        track: training-dynamics scores to gather, by name, or `all`; they are written to the run's scores.parquet.
        reader: a key of prunekd.input.READERS.
        on_error: what to do with a corrupt sample: `raise`, `replace` (by a kept one of its class) or `skip`.
        workers: decoding threads; None for one per core.
        device: `auto`, `cpu`, `cuda` or a torch.device.
        resume: `auto` goes on with the run in `out` if there is one, a path with that checkpoint; None starts anew.
        progress: called by the main process with the figures of a run in progress: kind (`train` or `epoch`), step,
            total_steps, finished, epoch, loss, top1 and more.
        ledger: where to book the seconds as well as in result.json; None for a new one.

    Returns:
        The finished run.

    Raises:
        ValueError: settings, inputs or a folder that do not fit together; the message names them.
        RuntimeError: a loss that is not finite, another process at work in `out`, or a signal that stopped the run (a
            checkpoint was written).
        KeyboardInterrupt: a first Ctrl-C stopped the run (a checkpoint was written), or a second one at once.

    Example:
        run = prunekd.train("store", recipe="demo", settings={"epochs": 1}, teacher="teacher", out="student")
        print(run.top1, run.path)
    """
    store, out = open_store(store), Path(out)
    resolved = as_recipe(recipe, {**(settings or {}), **({"track": _tracked(track)} if track else {})})
    if teacher is None and labels is None:
        _refuse_distilling(settings or {})
    with open_world(device_of(teacher, device)) as world:
        chosen = None if subset is None else as_subset(store, subset)
        online = None if teacher is None else as_teacher(teacher, store.classes, device=world.device)
        spec = RunSpec(
            store=store,
            recipe=resolved,
            out=out,
            model=model,
            subset=chosen,
            teacher=online,
            cached=None if labels is None else as_labels(labels, store, resolved, chosen, world.device),
            class_scale=None if reshape is None else class_scale(reshape, store),
            reader=reader,
            on_error=on_error,
            workers=workers,
            tags={"arm": "kd_cached" if labels is not None else "kd" if teacher is not None else "plain"},
        )
        if resume == "auto" and (out / RESULT_FILE).exists():
            check_folder(out, spec.describe(), "auto")  # refuses other settings
            logger.info(f"{out} is finished already")
            return _finished(spec)
        if world.is_main:
            _announce(spec)
        trainer = Trainer(spec, world, resume=None if resume is None else str(resume), ledger=ledger)
        if progress is not None:
            trainer.on_progress(progress)
        trainer.fit()
        if model is not None:
            model.eval()
        world.barrier()  # the main process has written the files
        return Run.open(out)


def _refuse_distilling(settings: Settings) -> None:
    """Refuse settings of distillation where there is nothing to distil from; a recipe may have some all the same."""
    for key in settings:
        if key == "distill" or key.startswith("distill."):
            option = {"distill.alpha": " (--alpha)", "distill.temperature": " (--temperature)"}.get(key, "")
            raise ValueError(
                f"{key}{option} is {settings[key]!r}, but the run has no teacher; give a teacher or soft labels, or "
                "leave it out to train on labels alone"
            )


def _finished(spec: RunSpec) -> Run:
    """The run that is done; the user's module gets its weights."""
    run = Run.open(spec.out)
    if spec.model is not None:
        run.load_model(spec.model)
    return run


def _tracked(names: str | Sequence[str]) -> tuple[str, ...]:
    several = [names] if isinstance(names, str) else names
    return tuple(DYNAMICS) if "all" in several else tuple(several)


def _announce(spec: RunSpec) -> None:
    recipe = spec.recipe
    logger.info(f"{spec.kept} of {spec.total} samples (keep {spec.keep:g}), {recipe.epochs} epochs, {spec.model_name}")
    logger.info(f"objective: {spec.told_objective()}")
