"""`prunekd train`."""

from pathlib import Path

import click

from prunekd.cli._shared import DEVICE, JSON, STORE, WORKERS, booked_from, emit, training_bar
from prunekd.cli._teacher import TEACHER_HELP, teacher_options
from prunekd.cli._training import settings_of, training_options


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
def command(
    began: float,
    *,
    store: Path,
    recipe: str,
    alpha: str | None,
    temperature: float | None,
    reader: str,
    on_error: str,
    overrides: tuple[str, ...],
    out: Path,
    subset: Path | None,
    teacher: str | None,
    labels: Path | None,
    reshape: Path | None,
    track: str | None,
    resume: str | None,
    teacher_precision: str,
    teacher_size: str | None,
    teacher_compile: str,
    device: str,
    workers: int | None,
    as_json: bool,
) -> None:
    """Train a student on STORE, with or without a teacher.

    Without --teacher or --labels the student learns from the classes alone; that is also how a teacher is made.

    \b
    Example:
      prunekd train store --recipe demo --out teacher
      prunekd train store --recipe demo --subset half.parquet --teacher teacher --out student
    """
    from prunekd.api.teachers import open_teacher
    from prunekd.api.training import train
    from prunekd.common.distributed import open_world

    with booked_from(began) as ledger, open_world(device) as world, training_bar(out.name) as progress:
        opened = None
        if teacher is not None:
            opened = open_teacher(
                teacher,
                store,
                precision=teacher_precision,
                size=teacher_size,
                compile=teacher_compile,
                device=world.device,
            )
        run = train(
            store,
            recipe=recipe,
            settings=settings_of(overrides, alpha, temperature),
            out=out,
            subset=subset,
            teacher=opened,
            labels=labels,
            reshape=reshape,
            track=track.split(",") if track else (),
            reader=reader,
            on_error=on_error,
            workers=workers,
            device=world.device,
            resume=resume,
            progress=progress,
            ledger=ledger,
        )
        if not world.is_main:
            return
    result = run.result
    top1 = "not measured (no validation split)" if run.top1 is None else f"{run.top1:.2%}"
    text = (
        f"top-1 {top1} after {result['epochs']} epochs of {result['samples_kept']} samples in "
        f"{run.train_seconds:.1f} s ({result['images_per_second']:.0f} images/s, "
        f"{result['data_wait_share']:.1%} waiting for data)\n{out}"
    )
    emit(run.result, as_json, text)
