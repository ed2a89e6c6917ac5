"""`prunekd inspect`."""

from pathlib import Path

import click

from prunekd.cli._shared import JSON, emit, progress_bar

GIB = 1 << 30


@click.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), help="For a subset: its store, to check and to draw from.")
@click.option("--scores", type=click.Path(path_type=Path), help="For a subset: scores to compare kept and dropped by.")
@click.option("--score", help="The score a contact sheet is sorted by [default: the one the subset was ranked by].")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="For a subset: draw a contact sheet (PNG)."
)
@click.option(
    "--subset",
    "subset_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="For a store: would it pay to compact it to this subset?",
)
@click.option("--keep", type=float, help="With --subset: this smaller fraction of its ranking.")
@click.option("--epochs", type=click.IntRange(min=1), help="With --subset: epochs of all runs to come [default: 90].")
@click.option(
    "--memory",
    type=click.FloatRange(min=0),
    help="With --subset: GiB that hold what was read [default: what is available here].",
)
@click.option("--verify", is_flag=True, help="For a store: read everything and hold it against its checksums.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which samples are drawn.")
@JSON
def command(
    path: Path,
    store: Path | None,
    scores: Path | None,
    score: str | None,
    out: Path | None,
    subset_file: Path | None,
    keep: float | None,
    epochs: int | None,
    memory: float | None,
    verify: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Show what PATH holds: a store, a scores file, a subset or a run folder.

    \b
    Example:
      prunekd inspect store
      prunekd inspect store --subset half.parquet --epochs 90
      prunekd inspect half.parquet --store store --scores scores.parquet --out sheet.png
    """
    from prunekd.api.inspecting import EPOCHS, inspect_run, inspect_scores, inspect_store, inspect_subset, kind_of
    from prunekd.cli._tables import render

    kind = kind_of(path)
    if kind != "subset" and (store or scores or score or out):
        raise ValueError(f"--store, --scores, --score and --out are for subsets, and {path} is a {kind}")
    if kind != "store" and (subset_file or verify):
        raise ValueError(f"--subset and --verify are for stores, and {path} is a {kind}")
    if not subset_file and (keep, epochs, memory) != (None, None, None):
        raise ValueError("--keep, --epochs and --memory say when compacting to a subset pays: give --subset FILE too")
    if kind == "store":
        with progress_bar(None, "verify") as update:
            store_facts = inspect_store(
                path,
                subset=subset_file,
                keep=keep,
                epochs=epochs or EPOCHS,
                memory=None if memory is None else round(memory * GIB),
                verify=verify,
                progress=lambda split, done, total: update(done, "", total, f"verify {split}"),
            )
        emit(store_facts.to_dict(), as_json, lambda: render(store_facts))
        if store_facts.damaged:
            raise RuntimeError(f"{path} is damaged: {len(store_facts.damaged)} samples; convert the dataset again")
    elif kind == "run":
        run_facts = inspect_run(path)
        emit(run_facts.to_dict(), as_json, lambda: render(run_facts))
    else:
        facts = (
            inspect_scores(path)
            if kind == "scores"
            else inspect_subset(path, store=store, scores=scores, score=score, out=out, seed=seed)
        )
        emit({"path": str(path), **facts.to_dict()}, as_json, lambda: render(facts, path))
