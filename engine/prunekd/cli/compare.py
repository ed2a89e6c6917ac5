"""`prunekd compare`."""

from collections import Counter
from pathlib import Path
from typing import Any

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
    from prunekd.cli._tables import render
    from prunekd.pruning import read_subset
    from prunekd.pruning.compare import compare_subsets
    from prunekd.pruning.scores import read_scores

    if sheets and not store:
        raise ValueError("--sheets draws samples and needs --store, the store they are in")
    names = _names(subsets)
    opened = {name: read_subset(path) for name, path in zip(names, subsets, strict=True)}
    table = read_scores(scores) if scores else None
    facts = compare_subsets(opened, table, score)
    if out:
        from prunekd.pruning.compare_figure import draw_comparison

        draw_comparison(facts, out)
        facts["picture"] = str(out)
    if sheets and store:
        facts["contact_sheets"] = _draw_sheets(store, opened, sheets, table, score)
    emit(facts, as_json, render(facts))


def _names(paths: tuple[Path, ...]) -> list[str]:
    """File names without `.parquet`; whole paths where those are not all different."""
    stems = Counter(path.stem for path in paths)
    return [path.stem if stems[path.stem] == 1 else str(path) for path in paths]


def _draw_sheets(store: Path, subsets: dict[str, Any], folder: Path, scores: Any, score: str | None) -> list[str]:
    from prunekd.pruning.contact_sheet import draw_contact_sheet
    from prunekd.store import open_store

    opened = open_store(store)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, subset in subsets.items():
        target = folder / f"{Path(name).name}.png"
        draw_contact_sheet(opened, subset, target, scores, score)
        drawn.append(str(target))
    return drawn
