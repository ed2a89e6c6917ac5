"""`prunekd score`."""

from pathlib import Path
from typing import Any

import click

from prunekd.cli._shared import DEVICE, JSON, STORE, WORKERS, emit, progress_bar, say
from prunekd.cli._teacher import TEACHER_HELP, open_teacher_with, teacher_options

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
    "view_name",
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
def command(**options: Any) -> None:
    """Score every training sample of STORE: in one pass of a teacher, from a file, or as the mean of scores files.

    \b
    Example:
      prunekd score store --teacher teacher --out scores.parquet
      prunekd score store --import metrics.csv --column memorization --key path --out imported.parquet
      prunekd score store --merge run0/scores.parquet --merge run1/scores.parquet --out mean.parquet
    """
    from prunekd.common.distributed import open_world
    from prunekd.pruning.scores import write_scores
    from prunekd.store import open_store

    out = options["out"]
    if out.exists():
        raise ValueError(f"{out} exists; scores are never overwritten: choose another --out or remove it")
    ways = [way for way in ("teacher", "imported", "merged") if options[way]]
    if len(ways) != 1:
        raise ValueError("give one of --teacher, --import and --merge: where the scores come from")
    store = open_store(options["store"])
    with open_world(options["device"]) as world:
        scores = {"teacher": _from_teacher, "imported": _from_file, "merged": _from_scores}[ways[0]](
            store, world, options
        )
        if not world.is_main:
            return
    write_scores(out, scores)
    summary: dict[str, Any] = {"out": str(out), "samples": len(scores.ids), "scores": list(scores.columns)}
    text = f"{len(scores.ids)} samples scored: {', '.join(scores.definitions.values())}\n{out}"
    if "seconds" in scores.provenance:
        summary["seconds"] = seconds = scores.provenance["seconds"]
        text = f"{len(scores.ids)} samples scored in {seconds:.1f} s ({len(scores.ids) / seconds:.0f} images/s): " + (
            f"{', '.join(scores.columns)}\n{out}"
        )
    emit(summary, options["as_json"], text)


def _from_teacher(store: Any, world: Any, options: dict[str, Any]) -> Any:
    from prunekd.inference.score_pass import score_store
    from prunekd.input.views import ViewSettings
    from prunekd.training import load_recipe

    names = _names(options["names"])
    model, info = open_teacher_with(options, options["teacher"], store.classes, world.device)
    if options["recipe"]:
        settings = load_recipe(options["recipe"])
        view = settings.train_view if options["view_name"] == "train" else settings.eval_view
    elif options["view_name"] == "train":
        raise ValueError("--view train needs --recipe, which says what a training view is")
    else:
        view = ViewSettings(kind="center", size=model.card.size)
    with progress_bar(len(store.split("train")) // world.size, "score") as update:
        return score_store(
            store,
            model,
            info,
            view,
            world,
            names=names,
            features=options["features"],
            scratch=options["out"].absolute().parent,
            seed=options["seed"],
            batch_size=options["batch_size"],
            workers=options["workers"],
            progress=lambda done, _total: update(done, "samples") if world.is_main else None,
        )


def _names(text: str) -> list[str]:
    from prunekd.pruning.scores import FEATURE_SCORES, SCORES

    groups = {
        "logits": [name for name, score in SCORES.items() if not score.needs_features],
        "all": [*SCORES, *FEATURE_SCORES],
    }
    return [name for part in text.split(",") for name in groups.get(part.strip(), [part.strip()])]


def _from_file(store: Any, world: Any, options: dict[str, Any]) -> Any:
    from prunekd.pruning.scores.imported import import_scores

    if not options["column"]:
        raise ValueError("--import needs --column, the score's column in the file")
    scores, report = import_scores(
        store,
        options["imported"],
        options["column"],
        key=options["key"],
        key_column=options["key_column"],
        hard_end=options["hard_end"],
        name=options["name"],
        fill=options["fill"],
    )
    say(str(report))
    return scores


def _from_scores(store: Any, world: Any, options: dict[str, Any]) -> Any:
    from prunekd.pruning.scores import read_scores
    from prunekd.pruning.scores.average import average_scores

    scores = average_scores({str(path): read_scores(path) for path in options["merged"]})
    scores.check(store)
    return scores
