"""The picture of a comparison of subsets."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunekd.common.files import replacing
from prunekd.pruning.compare import Comparison, Difficulty

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")  # Okabe and Ito


def draw_comparison(comparison: Comparison, target: Path) -> None:
    """Draw what `compare_subsets` found into the PNG `target`."""
    from matplotlib.figure import Figure  # here, because it takes long to import and few comparisons are drawn

    names, difficulty = comparison.names, comparison.difficulty
    figure = Figure(figsize=(15 if difficulty else 11, 4.6), layout="constrained")
    axes = figure.subplots(1, 4 if difficulty else 3)
    _matrix(axes[0], names, comparison.of_smaller, "Shared, of the smaller subset")
    _matrix(axes[1], names, comparison.rank_correlation, "Rank correlation of the shared")
    _classes(axes[2], names, comparison.class_counts)
    if difficulty:
        _difficulty(axes[3], names, difficulty)
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _matrix(axis: "Axes", names: list[str], values: Sequence[Sequence[float | None]], title: str) -> None:
    grid = np.array([[np.nan if v is None else v for v in row] for row in values])
    axis.imshow(grid, vmin=-1 if np.nanmin(grid) < 0 else 0, vmax=1, cmap="Blues")
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            text = "-" if np.isnan(value) else f"{value:.2f}"
            axis.text(j, i, text, ha="center", va="center", color="white" if value > 0.6 else "black")
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_title(title, fontsize=10)


def _classes(axis: "Axes", names: list[str], class_counts: list[list[int]]) -> None:
    for k, (name, counts) in enumerate(zip(names, class_counts, strict=True)):
        axis.plot(np.sort(np.array(counts))[::-1], color=COLOURS[k % len(COLOURS)], label=name)
    axis.set(xlabel="classes, the largest first", ylabel="samples kept", ylim=(0, None))
    axis.set_title("Class balance", fontsize=10)
    axis.legend(frameon=False, fontsize=8)


def _difficulty(axis: "Axes", names: list[str], difficulty: Difficulty) -> None:
    shares = difficulty.share
    width = 0.8 / len(shares)
    for k, (name, share) in enumerate(zip(names, shares, strict=True)):
        places = np.arange(len(share)) + (k - (len(shares) - 1) / 2) * width
        axis.bar(places, share, width, color=COLOURS[k % len(COLOURS)], label=name)
    axis.axhline(1 / len(shares[0]), color="grey", linewidth=0.8, linestyle=":")
    axis.set(xlabel=f"tenth of all samples by {difficulty.score}, easy to hard", ylabel="share of the subset")
    axis.set_title("Difficulty", fontsize=10)
