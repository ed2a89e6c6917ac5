"""The picture of a comparison of subsets."""

from pathlib import Path
from typing import Any

import numpy as np

from prunekd.common.files import replacing

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")  # Okabe and Ito


def draw_comparison(facts: dict[str, Any], target: Path) -> None:
    """Draw what `compare_subsets` found into the PNG `target`."""
    from matplotlib.figure import Figure

    with_difficulty = "difficulty" in facts
    figure = Figure(figsize=(15 if with_difficulty else 11, 4.6), layout="constrained")
    axes = figure.subplots(1, 4 if with_difficulty else 3)
    _matrix(axes[0], facts["names"], facts["of_smaller"], "Shared, of the smaller subset")
    _matrix(axes[1], facts["names"], facts["rank_correlation"], "Rank correlation of the shared")
    _classes(axes[2], facts)
    if with_difficulty:
        _difficulty(axes[3], facts)
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _matrix(axis: Any, names: list[str], values: list[list[float | None]], title: str) -> None:
    grid = np.array([[np.nan if v is None else v for v in row] for row in values])
    axis.imshow(grid, vmin=-1 if np.nanmin(grid) < 0 else 0, vmax=1, cmap="Blues")
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            text = "-" if np.isnan(value) else f"{value:.2f}"
            axis.text(j, i, text, ha="center", va="center", color="white" if value > 0.6 else "black")
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(title, fontsize=10)


def _classes(axis: Any, facts: dict[str, Any]) -> None:
    for k, (name, counts) in enumerate(zip(facts["names"], facts["class_counts"], strict=True)):
        axis.plot(np.sort(counts)[::-1], color=COLOURS[k % len(COLOURS)], label=name)
    axis.set(xlabel="classes, the largest first", ylabel="samples kept", ylim=(0, None))
    axis.set_title("Class balance", fontsize=10)
    axis.legend(frameon=False, fontsize=8)


def _difficulty(axis: Any, facts: dict[str, Any]) -> None:
    shares = facts["difficulty"]["share"]
    width = 0.8 / len(shares)
    for k, share in enumerate(shares):
        places = np.arange(len(share)) + (k - (len(shares) - 1) / 2) * width
        axis.bar(places, share, width, color=COLOURS[k % len(COLOURS)], label=facts["names"][k])
    axis.axhline(1 / len(shares[0]), color="grey", linewidth=0.8, linestyle=":")
    axis.set(
        xlabel=f"tenth of all samples by {facts['difficulty']['score']}, easy to hard", ylabel="share of the subset"
    )
    axis.set_title("Difficulty", fontsize=10)
