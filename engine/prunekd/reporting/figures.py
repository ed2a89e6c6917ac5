"""The figures, drawn with matplotlib's object interface (no pyplot, no state shared between reports).

Each `draw_*` fills one Axes and returns whether it had anything to draw; `page_figures` makes SVGs for the page and
`write_overview` one PNG of four.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from prunekd.reporting.aggregate import Summary
from prunekd.reporting.axes import apart, keep_axis, legend, log_axis, plain_ticks, settings, to_svg
from prunekd.reporting.results import timing_note
from prunekd.reporting.style import LIGHT, Palette, sentinels, sorted_phases
from prunekd.reporting.views import VIEWS, View, bars, lines, policy_rank, with_costs
from prunekd.reporting.wording import arm_title, number, series_title

Drawer = Callable[[Axes, Summary, Palette], bool]
DASHES = ("-", (0, (4, 1.6)), (0, (1, 1.4)), (0, (5, 1.4, 1, 1.4)), (0, (7, 2)))
MARKERS = "osD^vP"
_SIZE = (4.5, 3.3)  # inches: on a phone about one to one
_BAR = 0.2  # inches a ledger bar takes


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure: SVG text, and the limits of its axes, so that others can have the same."""

    svg: str
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]


def draw_view(axes: Axes, summary: Summary, palette: Palette, *, view: View) -> bool:
    """One line with error bars for each (arm, policy); False if there is no value at all."""
    found = lines(summary, view)
    for key, points in found.items():
        colour, rank = palette.arm(key[0], summary.arms), policy_rank(summary, key)
        marker = MARKERS[rank % len(MARKERS)]
        axes.errorbar(
            [x for x, _, _ in points],
            [value.mean for _, value, _ in points],
            [value.sd or 0.0 for _, value, _ in points],
            color=colour,
            ls=DASHES[rank % len(DASHES)],
            marker=marker,
            ms=4.5,
            capsize=2,
            elinewidth=1,
            label=series_title(*key),
            zorder=3,
        )
        if view.ideal and view.title == VIEWS["speedup"].title:
            _hollow(axes, palette, [(x, group) for x, _, group in points], colour, marker)
    if view.front:
        _front(axes, summary, palette)
    if view.ideal:
        _ideal(axes, summary, palette)
    _finish(axes, summary, palette, view)
    return bool(found)


def _finish(axes: Axes, summary: Summary, palette: Palette, view: View) -> None:
    if view.over_keep:
        keep_axis(axes, summary)
    elif "x" in view.log:
        axes.set_xscale("log")
        plain_ticks(axes, "x")
    if "y" in view.log:
        axes.axhline(1, color=palette["muted"], lw=0.8, zorder=1)
        log_axis(axes, view.unit)
    if view.y_label.startswith("bytes"):
        axes.set_ylim(min(0.98, axes.get_ylim()[0]), max(1.1, axes.get_ylim()[1]))
    axes.set_xlabel(view.x_label)
    axes.set_ylabel(view.y_label)
    legend(axes, view.legend)


def _hollow(axes: Axes, palette: Palette, points: Sequence[tuple[float, Any]], colour: str, marker: str) -> None:
    """The same speed-ups with one-off costs counted."""
    paid = [(x, value.mean) for x, group in points if (value := with_costs(group))]
    if paid:
        x, y = zip(*sorted(paid), strict=True)
        axes.plot(x, y, ":", marker=marker, color=colour, mfc=palette["paper"], ms=4.5, lw=1, zorder=2)


def _front(axes: Axes, summary: Summary, palette: Palette) -> None:
    front = summary.front()
    if front:
        x, y = [g.total_seconds for g in front], [100 * g.top1.mean for g in front if g.top1]
        axes.step(x, y, where="post", color=palette["muted"], lw=5, alpha=0.25, label="Pareto front", zorder=1)


def _ideal(axes: Axes, summary: Summary, palette: Palette) -> None:
    if summary.keeps and summary.keeps[0] < 1:
        line = np.geomspace(summary.keeps[0], 1, 32)
        axes.plot(line, 1 / line, color=palette["muted"], lw=1, ls=(0, (2, 2)), label="ideal 1/r", zorder=1)


def draw_speedup(axes: Axes, summary: Summary, palette: Palette) -> bool:
    """The view `speedup`, with the hollow markers in the legend."""
    drawn = draw_view(axes, summary, palette, view=VIEWS["speedup"])
    if any(with_costs(group) for group in summary.groups):
        hollow = Line2D([], [], ls=":", marker="o", color=palette["muted"], mfc=palette["paper"], ms=4.5, lw=1)
        legend(axes, VIEWS["speedup"].legend, [hollow], ["with one-off costs"])
    return drawn


def draw_epochs(axes: Axes, summary: Summary, palette: Palette) -> bool:
    """Median epoch seconds against the share seen, with the fit a * r + c of each arm."""
    for at, fit in enumerate(summary.fits):
        colour = palette.arm(fit.arm, summary.arms)
        mine = [group for group in summary.groups if group.arm == fit.arm]
        middles = [group.epoch_seconds.median for group in mine]
        low = [g.epoch_seconds.median - g.epoch_seconds.q1 for g in mine]
        high = [g.epoch_seconds.q3 - g.epoch_seconds.median for g in mine]
        shares = [group.kept_share for group in mine]
        axes.errorbar(shares, middles, [low, high], fmt="o", color=colour, ms=4, lw=1, capsize=2, zorder=3 + at)
        ends = np.array([0.0, 1.0])
        sign = "+" if fit.constant >= 0 else "-"
        label = f"{arm_title(fit.arm)}: {number(fit.slope)} r {sign} {number(abs(fit.constant))} s"
        axes.plot(ends, fit.slope * ends + fit.constant, color=colour, lw=1.2, label=label)
    axes.set_xlim(0, 1.04)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    ticks = apart([0.0, *summary.keeps], lambda value: value, 0.07)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("share of the samples seen, r")
    axes.set_ylabel("seconds per epoch (median, IQR)")
    legend(axes, "upper left")
    return bool(summary.fits)


def draw_ledger(axes: Axes, summary: Summary, palette: Palette) -> bool:
    """Mean seconds of a run by phase, one bar for each group, one-off costs included."""
    groups = list(summary.groups)
    seconds = [bars(group) for group in groups]
    left = np.zeros(len(groups))
    for phase in sorted_phases([name for bar in seconds for name in bar]):
        widths = np.array([bar.get(phase, 0.0) for bar in seconds])
        if widths.sum() > 0:
            axes.barh(range(len(groups)), widths, 0.72, left, color=palette.phase(phase), label=phase.replace("_", " "))
        left += widths
    axes.set_yticks(range(len(groups)), [f"{series_title(g.arm, g.policy)} {g.keep:g}" for g in groups])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.grid(False, axis="y")
    axes.set_xlabel("seconds per run (mean over seeds)")
    rows = axes.get_legend_handles_labels()
    axes.legend(*rows, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, handlelength=1, columnspacing=1)
    return bool(groups)


DRAWERS: dict[str, Drawer] = {
    "accuracy": partial(draw_view, view=VIEWS["accuracy"]),
    "speedup": draw_speedup,
    "break_even": partial(draw_view, view=VIEWS["break_even"]),
    "time": partial(draw_view, view=VIEWS["time"]),
    "plain": partial(draw_view, view=VIEWS["plain"]),
    "reads": partial(draw_view, view=VIEWS["reads"]),
    "epochs": draw_epochs,
    "ledger": draw_ledger,
}


def page_figures(summaries: Sequence[Summary]) -> dict[str, list[Picture | None]]:
    """Each figure once for every sweep (None: nothing to draw), with the same axes side by side, by name."""
    found = {}
    for name, draw in DRAWERS.items():
        drawn = [_draw(name, at, summary, draw) for at, summary in enumerate(summaries)]
        known = [item for item in drawn if item is not None]
        if known:
            if name != "ledger":
                _same_limits([axes for _, axes in known])
            found[name] = [item and _picture(*item, salt=f"{name}{at}") for at, item in enumerate(drawn)]
    return found


def _draw(name: str, at: int, summary: Summary, draw: Drawer) -> tuple[Figure, Axes] | None:
    palette = sentinels()
    size = (_SIZE[0], _ledger_height(summary)) if name == "ledger" else _SIZE
    with mpl.rc_context(settings(palette, f"{name}{at}")):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = _axes(figure, 111)
        return (figure, axes) if draw(axes, summary, palette) else None


def _same_limits(every: Sequence[Axes]) -> None:
    x = [axes.get_xlim() for axes in every]
    y = [axes.get_ylim() for axes in every]
    for axes in every:
        axes.set_xlim(min(a for a, _ in x), max(b for _, b in x))
        axes.set_ylim(min(a for a, _ in y), max(b for _, b in y))


def _picture(figure: Figure, axes: Axes, salt: str) -> Picture:
    with mpl.rc_context(settings(sentinels(), salt)):
        return Picture(to_svg(figure), axes.get_xlim(), axes.get_ylim())


def write_overview(summary: Summary, path: Path, title: str) -> None:
    """Draw accuracy, speed-up, accuracy over time and the ledger into one PNG of 150 dots per inch."""
    palette = Palette(LIGHT)
    with mpl.rc_context(settings(palette, "overview") | {"font.size": 9}):
        height = max(4.0, _ledger_height(summary) + 0.4)
        figure = Figure(figsize=(14.4, 4.2 + height), dpi=150, layout="constrained", facecolor=palette["paper"])
        FigureCanvasAgg(figure)
        halves: Any = figure.subfigures(2, 1, height_ratios=(4.2, height))
        top, bottom = halves
        top.suptitle(title, fontsize=12.5, fontweight="bold", color=palette["ink"], wrap=True)
        headings: Mapping[str, str] = {"accuracy": "Accuracy", "speedup": "Speed-up", "time": "Accuracy over time"}
        for at, (name, heading) in enumerate(headings.items()):
            _panel(_axes(top, 131 + at), heading, DRAWERS[name], summary, palette)
        _panel(_axes(bottom, 111), "", draw_ledger, summary, palette)
        if note := timing_note(summary.sweep):
            bottom.supxlabel(note, fontsize=9, color=palette["s0"])
        figure.savefig(path, format="png")


def _panel(axes: Axes, heading: str, draw: Drawer, summary: Summary, palette: Palette) -> None:
    if not draw(axes, summary, palette):
        axes.clear()
        axes.set_axis_off()
        axes.text(0.5, 0.5, "nothing was measured", ha="center", transform=axes.transAxes, color=palette["muted"])
    axes.set_title(heading, loc="left", fontweight="bold", color=palette["ink"])


def _axes(figure: Figure, position: int) -> Axes:
    axes: Axes = figure.add_subplot(position)
    axes.set_axisbelow(True)
    return axes


def _ledger_height(summary: Summary) -> float:
    return 1.3 + _BAR * max(4, len(summary.groups))
