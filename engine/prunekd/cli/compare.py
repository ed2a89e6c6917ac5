"""`prunekd compare`."""

from pathlib import Path

import click

from prunekd.cli._shared import JSON, emit

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("compare")
@click.argument("subsets", nargs=-1, required=True, type=FILE)
@click.option("--scores", type=FILE, help="Scores file: how hard are the samples that each keeps?")
@click.option("--score", help="Column of the scores file [default: the first subset's own].")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also draw a picture (PNG).")
@click.option(
    "--sheets",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also draw a contact sheet of each subset into this folder (needs --store).",
)
@click.option("--store", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The subsets' store.")
@JSON
def command(
    subsets: tuple[Path, ...],
    scores: Path | None,
    score: str | None,
    out: Path | None,
    sheets: Path | None,
    store: Path | None,
    as_json: bool,
) -> None:
    """Lay SUBSETS (two or more files) side by side: what they share, its order, classes, difficulties.

    \b
    Example:
      prunekd compare random.parquet medium.parquet --scores scores.parquet --out compared.png
    """
    from prunekd.api.inspecting import compare
    from prunekd.cli._tables import render

    comparison = compare(subsets, scores=scores, score=score, out=out, sheets=sheets, store=store)
    emit(comparison.to_dict(), as_json, lambda: render(comparison))
