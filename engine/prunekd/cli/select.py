"""`prunekd select`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from prunekd.cli._shared import JSON, STORE, emit, progress_bar

if TYPE_CHECKING:
    from prunekd.pruning import Subset


@click.command("select")
@STORE
@click.option(
    "--policy",
    required=True,
    help="random, hardest, easiest, medium, moderate, window, ccs, beta, herding, k_center or d2.",
)
@click.option("--keep", "keeps", required=True, help="Fraction to keep, in (0, 1]; several with commas.")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Subset file (Parquet); with several fractions a name with {keep} in it.",
)
@click.option("--scores", type=click.Path(dir_okay=False, path_type=Path), help="Scores file, where the policy ranks.")
@click.option("--score", help="Column of the scores file [default: the policy's own, such as teacher_ce].")
@click.option(
    "--balance",
    help="none: one ranking over all; proportional: each class its share; equal: the classes take turns; quota: at "
    "most int(N/C*keep) of each class, as medium does [default: none; medium: quota].",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of what is drawn.")
@click.option(
    "--features",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Features of a teacher (`prunekd score --features`), for herding, k_center and d2.",
)
@click.option("--set", "overrides", multiple=True, metavar="NAME=NUMBER", help="A policy's parameter: low=0.2.")
@JSON
def command(
    store: Path,
    policy: str,
    keeps: str,
    out: Path,
    scores: Path | None,
    score: str | None,
    balance: str | None,
    seed: int,
    overrides: tuple[str, ...],
    features: Path | None,
    as_json: bool,
) -> None:
    """Choose which training samples of STORE to keep.

    A smaller --keep with the same settings always keeps a part of what a larger one does (but for beta).

    \b
    Example:
      prunekd select store --policy medium --scores scores.parquet --keep 0.5 --out half.parquet
      prunekd select store --policy random --keep 0.5,0.2,0.1 --out random-{keep}.parquet
    """
    from prunekd.api.selecting import select_ratios

    ratios = _ratios(keeps)
    files = _files(out, ratios)
    with progress_bar(100, f"select {policy}") as update:
        subsets = select_ratios(
            store,
            policy,
            keeps=ratios,
            scores=scores,
            score=score,
            balance=balance,
            seed=seed,
            parameters=_parameters(overrides),
            features=features,
            progress=lambda done, total: update(100 * done // total, f"class {done} of {total}"),
        )
    for file, subset in zip(files, subsets, strict=True):
        subset.save(file)
    infos = [{"out": str(file), **subset.info} for file, subset in zip(files, subsets, strict=True)]
    text = "\n".join(f"{_summary(subset)}\n{file}" for file, subset in zip(files, subsets, strict=True))
    emit(infos[0] if len(infos) == 1 else infos, as_json, text)


def _ratios(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--keep takes a fraction in (0, 1], or several with commas, not {text!r}") from None


def _files(out: Path, ratios: list[float]) -> list[Path]:
    """One file per ratio; ValueError unless they differ and none exists."""
    files = [Path(str(out).replace("{keep}", f"{ratio:g}")) for ratio in ratios]
    if len(set(files)) < len(files):
        raise ValueError(f"{len(ratios)} ratios need as many files; write --out with {{keep}} in its name, such as "
                         "subset-{keep}.parquet, and each ratio once")  # fmt: skip
    for file in files:
        if file.exists():
            raise ValueError(f"{file} exists; subsets are never overwritten: choose another --out or remove it")
    return files


def _parameters(overrides: tuple[str, ...]) -> dict[str, float]:
    parameters = {}
    for item in overrides:
        name, _, value = item.partition("=")
        try:
            parameters[name] = float(value)
        except ValueError:
            raise ValueError(f"--set takes NAME=NUMBER, such as low=0.2, not {item!r}") from None
    return parameters


def _summary(subset: "Subset") -> str:
    info = subset.info
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
