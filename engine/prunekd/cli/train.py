"""`prunekd train`."""

from pathlib import Path
from typing import Any

import click

from prunekd.cli._shared import DEVICE, JSON, STORE, WORKERS, booked_from, emit, progress_bar, say, training_text
from prunekd.cli._teacher import TEACHER_HELP, open_teacher_with, teacher_options
from prunekd.cli._training import labels_option, overrides_option, training_options


@click.command("train")
@STORE
@training_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--subset", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Samples to keep.")
@click.option("--teacher", help=TEACHER_HELP)
@click.option(
    "--labels",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Cached soft labels (`prunekd labels`) in place of a teacher.",
)
@click.option(
    "--reshape",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="SCORES",
    help="Reshape the teacher's logits with the class statistics in this scores file.",
)
@click.option("--track", metavar="NAMES", help="Training-dynamics scores to gather, e.g. dual,aum, or all.")
@click.option("--resume", metavar="auto|CHECKPOINT", help="Go on with the run in --out.")
@teacher_options("bf16")
@DEVICE
@WORKERS
@JSON
@click.pass_obj
def command(began: float, **options: Any) -> None:
    """Train a student on STORE, with or without a teacher.

    Without --teacher or --labels the student learns from the classes alone; that is also how a teacher is made.

    \b
    Example:
      prunekd train store --recipe demo --out teacher
      prunekd train store --recipe demo --subset half.parquet --teacher teacher --out student
    """
    import prunekd.training  # noqa: F401 - here, so that it counts as imports
    from prunekd.common.distributed import open_world

    with booked_from(began) as ledger, open_world(options["device"]) as world:
        result = _train(world, ledger, **options)
    if world.is_main:
        top1 = "not measured (no validation split)" if result["top1"] is None else f"{result['top1']:.2%}"
        text = (
            f"top-1 {top1} after {result['epochs']} epochs of {result['samples_kept']} samples in "
            f"{result['train_seconds']:.1f} s ({result['images_per_second']:.0f} images/s, "
            f"{result['data_wait_share']:.1%} waiting for data)\n{options['out']}"
        )
        emit(result, options["as_json"], text)


def _train(world: Any, ledger: Any, **options: Any) -> dict[str, Any]:
    from prunekd.common.files import read_json
    from prunekd.pruning.subset import read_subset
    from prunekd.store import open_store
    from prunekd.training import RunSpec, Trainer, load_recipe
    from prunekd.training.run import prepare_folder

    store = open_store(options["store"])
    recipe = load_recipe(options["recipe"], overrides_option(options))
    teacher, info = open_teacher_with(options, options["teacher"], store.classes, world.device)
    subset = read_subset(options["subset"]) if options["subset"] else None
    cached = labels_option(options["labels"], store, recipe, subset, world.device)
    spec = RunSpec(
        store=store,
        recipe=recipe,
        out=options["out"],
        subset=subset,
        teacher=teacher,
        teacher_info=info,
        cached=cached,
        class_scale=class_scale_option(options["reshape"], store),
        reader=options["reader"],
        on_error=options["on_error"],
        workers=options["workers"],
        tags={"arm": "kd_cached" if cached else "kd" if teacher else "plain"},
    )
    finished = options["out"] / "result.json"
    if options["resume"] == "auto" and finished.exists():
        prepare_folder(spec, "auto")  # refuses other settings
        say(f"{options['out']} is finished already")
        result = read_json(finished)
        assert isinstance(result, dict)
        return result
    _, reason = spec.objective_settings()
    if world.is_main:
        say(f"{spec.kept} of {spec.total} samples (keep {spec.keep:g}), {recipe.epochs} epochs, {recipe.model.name}")
        say(f"objective: {spec.objective(world.device)!r}, alpha from {reason}")
    description = options["out"].name
    trainer = Trainer(spec, world, resume=options["resume"], ledger=ledger)
    if not world.is_main:
        return trainer.fit()
    with progress_bar(trainer.total_steps, description) as update:
        trainer.on_progress(lambda values: update(values["step"], training_text(values)))
        return trainer.fit()


def class_scale_option(path: Path | None, store: Any) -> Any:
    """Class statistics (C,) of a --reshape option's scores file, checked against the store; None without one."""
    if path is None:
        return None
    import torch

    from prunekd.pruning.scores import read_scores

    scores = read_scores(path)
    scores.check(store)
    return torch.as_tensor(scores.class_std, dtype=torch.float32)
