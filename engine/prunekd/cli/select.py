"""`prunekd select`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from prunekd.cli._shared import JSON, STORE, emit


@click.command("select")
@STORE
@click.option("--policy", required=True, help="random, hardest, easiest, medium, window or ccs.")
@click.option("--keep", required=True, type=float, help="Fraction to keep, in (0, 1].")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Subset file (Parquet).")
@click.option("--scores", type=click.Path(dir_okay=False, path_type=Path), help="Scores file, where the policy ranks.")
@click.option("--score", help="Column of the scores file [default: the policy's own, such as teacher_ce].")
@click.option(
    "--balance",
    help="none: one ranking over all; proportional: each class its share; equal: the classes take turns; quota: at "
    "most int(N/C*keep) of each class, as medium does [default: none; medium: quota].",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of what is drawn.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=NUMBER", help="A policy's parameter: low=0.2.")
@JSON
def command(
    store: Path,
    policy: str,
    keep: float,
    out: Path,
    scores: Path | None,
    score: str | None,
    balance: str | None,
    seed: int,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Choose which training samples of STORE to keep.

    A smaller --keep with the same settings always keeps a part of what a larger one does.

    \b
    Example:
      prunekd select store --policy medium --scores scores.parquet --keep 0.5 --out half.parquet
    """
    from prunekd.pruning import select, write_subset
    from prunekd.pruning.scores import read_scores
    from prunekd.store.index import open_store

    subset = select(
        open_store(store),
        policy,
        keep,
        seed,
        scores=read_scores(scores) if scores else None,
        score=score,
        balance=balance,
        parameters=_parameters(overrides),
    )
    write_subset(out, subset)
    emit({"out": str(out), **subset.info}, as_json, f"{_summary(subset.info)}\n{out}")


def _parameters(overrides: tuple[str, ...]) -> dict[str, float]:
    parameters = {}
    for item in overrides:
        name, _, value = item.partition("=")
        try:
            parameters[name] = float(value)
        except ValueError:
            raise ValueError(f"--set takes NAME=NUMBER, such as low=0.2, not {item!r}") from None
    return parameters


def _summary(info: Mapping[str, Any]) -> str:
    counts, share = info["class_counts"], info["kept"] / info["total"]
    ranked = f" by {info['score_definition']}" if info["score"] else ""
    lines = [
        f"{info['kept']} of {info['total']} samples kept ({share:.1%}): {info['policy']}{ranked}, "
        f"balance {info['balance']}, {min(counts)} to {max(counts)} per class"
    ]
    if info["balance"] == "quota" and share < 0.99 * info["keep"]:
        lines.append(
            f"less than the {info['keep']:.1%} asked for: every class has the same quota, and the smaller classes are "
            "kept whole (--balance equal fills up from the larger ones)"
        )
    return "\n".join(lines)
