"""Axes of the figures: ticks that can be read, style, and SVG coloured by CSS variables."""

import io
import re
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from prunekd.reporting.aggregate import Summary
from prunekd.reporting.style import Palette, to_variables


def settings(palette: Palette, salt: str) -> dict[str, object]:
    """Style of a figure; the salt keeps the ids of several SVGs in one page apart."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 8.5,
        "font.family": "DejaVu Sans",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.edgecolor": palette["muted"],
        "axes.labelcolor": palette["muted"],
        "text.color": palette["ink"],
        "xtick.color": palette["muted"],
        "ytick.color": palette["muted"],
        "axes.linewidth": 0.7,
        "axes.grid": True,
        "grid.color": palette["grid"],
        "grid.linewidth": 0.7,
        "lines.linewidth": 1.5,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "legend.handlelength": 2.4,
    }


def to_svg(figure: Figure) -> str:
    """The figure as an SVG element without sizes, ids apart by the salt it was drawn with."""
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', svg, count=1)
    return to_variables(svg.replace("xlink:href", "href")).strip()


def keep_axis(axes: Axes, summary: Summary) -> None:
    """Logarithmic, so that 1/r is straight; ticks at the ratios that were measured."""
    axes.set_xscale("log")
    ticks = apart(list(summary.keeps), np.log, 0.07)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if summary.keeps:
        span = max(1.1, (1 / summary.keeps[0]) ** 0.04)
        axes.set_xlim(summary.keeps[0] / span, max(summary.keeps) * span)
    axes.set_xlabel("keep ratio r (log scale)")


def apart(values: list[float], scale: Callable[[float], float], gap: float) -> list[float]:
    """Those of the rising `values` whose labels do not run into each other; the largest always stays."""
    if len(values) < 2:
        return values
    whole = scale(values[-1]) - scale(values[0])
    chosen = [values[-1]]
    for value in reversed(values[:-1]):
        if scale(chosen[-1]) - scale(value) >= gap * whole:
            chosen.append(value)
    return chosen[::-1]


def log_axis(axes: Axes, unit: str) -> None:
    """A logarithmic y axis; `unit` follows each number."""
    axes.set_yscale("log")
    plain_ticks(axes, "y")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}{unit}"))


def log_ticks(low: float, high: float) -> list[float]:
    """Round values from low to high, few enough to be written out along a logarithmic axis."""
    inside = [s for e in range(-4, 9) for m in (1, 2, 5) if low <= (s := m * 10.0**e) <= high]
    if len(inside) > 8:  # many decades
        return [s for e in range(-4, 9) if low <= (s := 10.0**e) <= high]
    if len(inside) < 3:  # a narrow range: let every digit have a tick
        inside = [s for e in range(-4, 9) for m in range(10, 100, 5) if low <= (s := m * 10.0 ** (e - 1)) <= high]
        inside = inside[:: max(1, len(inside) // 5)]
    return inside


def plain_ticks(axes: Axes, which: str) -> None:
    """A logarithmic axis with ticks at 1, 2, 5 times powers of ten, written out."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(log_ticks(*(axes.get_xlim() if which == "x" else axes.get_ylim()))))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def legend(axes: Axes, where: str, handles: Sequence[Line2D] = (), labels: Sequence[str] = ()) -> None:
    """A legend of what was drawn and of `handles`, if there is anything."""
    known, names = axes.get_legend_handles_labels()
    if known:
        axes.legend([*known, *handles], [*names, *labels], loc=where)
