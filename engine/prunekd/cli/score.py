"""`prunekd score`."""

from pathlib import Path
from typing import Literal

import click

from prunekd.cli._shared import DEVICE, JSON, STORE, WORKERS, counting_bar, emit
from prunekd.cli._teacher import TEACHER_HELP, teacher_options

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("score")
@STORE
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Scores file (Parquet).")
@click.option("--teacher", help=TEACHER_HELP)
@click.option(
    "--scores",
    "names",
    default="logits",
    show_default=True,
    help="Comma-separated names: teacher_ce, el2n, margin, entropy, least_confidence (`logits`: these five); "
    "grand_last, prototype, moderate, ssp, which look at features; or `all`.",
)
@click.option(
    "--features",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the teacher's features: a NumPy array float16, one row per sample, in order of id.",
)
@click.option("--recipe", help="Take the views from this recipe [default: the teacher's size and a centre view].")
@click.option(
    "--view",
    type=click.Choice(["center", "train"]),
    default="center",
    show_default=True,
    help="The evaluation view, or one seeded training view (needs --recipe).",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the training view.")
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--import", "imported", type=FILE, help="Take scores from a CSV, TSV or Parquet file instead.")
@click.option("--column", help="The score's column in that file; a number where it has no header line.")
@click.option("--key", type=click.Choice(["path", "id"]), default="path", show_default=True, help="What to join on.")
@click.option("--key-column", help="The column of paths or ids [default: one of a customary name].")
@click.option("--as", "name", help="Name of the imported score [default: its column's].")
@click.option(
    "--hard-end", type=click.Choice(["high", "low"]), default="high", show_default=True, help="The end that is hard."
)
@click.option("--fill", type=float, help="Imported score of samples that the file lacks [default: refuse them].")
@click.option("--merge", "merged", type=FILE, multiple=True, help="Average these scores files instead (repeat it).")
@teacher_options("fp32")
@DEVICE
@WORKERS
@JSON
def command(
    *,
    store: Path,
    out: Path,
    teacher: str | None,
    names: str,
    features: Path | None,
    recipe: str | None,
    view: str,
    seed: int,
    batch_size: int,
    imported: Path | None,
    column: str | None,
    key: str,
    key_column: str | None,
    name: str | None,
    hard_end: Literal["high", "low"],
    fill: float | None,
    merged: tuple[Path, ...],
    teacher_precision: str,
    teacher_size: str | None,
    teacher_compile: str,
    device: str,
    workers: int | None,
    as_json: bool,
) -> None:
    """Score every training sample of STORE: in one pass of a teacher, from a file, or as the mean of scores files.

    \b
    Example:
      prunekd score store --teacher teacher --out scores.parquet
      prunekd score store --import metrics.csv --column memorization --key path --out imported.parquet
      prunekd score store --merge run0/scores.parquet --merge run1/scores.parquet --out mean.parquet
    """
    from prunekd.api.scoring import import_scores, merge_scores, score
    from prunekd.api.teachers import open_teacher
    from prunekd.common.distributed import open_world

    if out.exists():
        raise ValueError(f"{out} exists; scores are never overwritten: choose another --out or remove it")
    if sum(map(bool, (teacher, imported, merged))) != 1:
        raise ValueError("give one of --teacher, --import and --merge: where the scores come from")
    with open_world(device) as world:
        if imported:
            if not column:
                raise ValueError("--import needs --column, the score's column in the file")
            scores = import_scores(
                store, imported, column, key=key, key_column=key_column, hard_end=hard_end, name=name, fill=fill
            )
        elif merged:
            scores = merge_scores(store, merged)
        else:
            assert teacher is not None
            with counting_bar("score", "samples") as progress:
                scores = score(
                    store,
                    open_teacher(
                        teacher,
                        store,
                        precision=teacher_precision,
                        size=teacher_size,
                        compile=teacher_compile,
                        device=world.device,
                    ),
                    names=[part.strip() for part in names.split(",")],
                    view=view,
                    recipe=recipe,
                    features=features,
                    scratch=out.absolute().parent,
                    seed=seed,
                    batch_size=batch_size,
                    workers=workers,
                    device=world.device,
                    progress=progress if world.is_main else None,
                )
        if not world.is_main:
            return
    scores.save(out)
    count, seconds = len(scores.ids), scores.provenance.get("seconds")
    summary: dict[str, object] = {"out": str(out), "samples": count, "scores": list(scores.columns)}
    if seconds is None:
        text = f"{count} samples scored: {', '.join(scores.definitions.values())}\n{out}"
    else:
        summary["seconds"] = seconds
        speed = f"{count} samples scored in {seconds:.1f} s ({count / seconds:.0f} images/s)"
        text = f"{speed}: {', '.join(scores.columns)}\n{out}"
    emit(summary, as_json, text)
