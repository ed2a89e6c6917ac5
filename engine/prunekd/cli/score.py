"""`prunekd score`."""

from pathlib import Path
from typing import Any

import click

from prunekd.cli._shared import DEVICE, JSON, STORE, WORKERS, emit, progress_bar, teacher_precision


@click.command("score")
@STORE
@click.option("--teacher", required=True, help="A run folder, a .safetensors file, ARCHITECTURE@WEIGHTS or timm:NAME.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Scores file (Parquet).")
@click.option("--scores", "names", default="all", show_default=True, help="Comma-separated names of scores.")
@click.option("--recipe", help="Take the views from this recipe [default: the teacher's size and a centre view].")
@click.option(
    "--view",
    "view_name",
    type=click.Choice(["center", "train"]),
    default="center",
    show_default=True,
    help="The evaluation view, or one seeded training view (needs --recipe).",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the training view.")
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True)
@teacher_precision("fp32")
@DEVICE
@WORKERS
@JSON
def command(
    store: Path,
    teacher: str,
    out: Path,
    names: str,
    recipe: str | None,
    view_name: str,
    seed: int,
    batch_size: int,
    teacher_precision: str,
    device: str,
    workers: int | None,
    as_json: bool,
) -> None:
    """Score every training sample of STORE in one pass of a teacher.

    \b
    Example:
      prunekd score store --teacher teacher --out scores.parquet
    """
    from prunekd.cli.train import open_teacher_option
    from prunekd.input.views import ViewSettings
    from prunekd.pruning.scores import SCORES, write_scores
    from prunekd.store.index import open_store
    from prunekd.training import load_recipe, open_world
    from prunekd.training.score_pass import score_store

    if out.exists():
        raise ValueError(f"{out} exists; scores are never overwritten: choose another --out or remove it")
    opened = open_store(store)
    with open_world(device) as world:
        model, info = open_teacher_option(teacher, opened.classes, teacher_precision, world.device)
        if recipe:
            settings = load_recipe(recipe)
            view = settings.train_view if view_name == "train" else settings.eval_view
        elif view_name == "train":
            raise ValueError("--view train needs --recipe, which says what a training view is")
        else:
            view = ViewSettings(kind="center", size=model.card.size)
        with progress_bar(len(opened.split("train")), "score") as update:
            scores = score_store(
                opened,
                model,
                info,
                view,
                world,
                names=list(SCORES) if names == "all" else names.split(","),
                seed=seed,
                batch_size=batch_size,
                workers=workers,
                progress=lambda done, _total: update(done, "samples"),
            )
    write_scores(out, scores)
    seconds = scores.provenance["seconds"]
    summary: dict[str, Any] = {"out": str(out), "samples": len(scores.ids), "seconds": seconds}
    summary["scores"] = list(scores.columns)
    text = (
        f"{len(scores.ids)} samples scored in {seconds:.1f} s ({len(scores.ids) / seconds:.0f} images/s): "
        f"{', '.join(scores.columns)}\n{out}"
    )
    emit(summary, as_json, text)
