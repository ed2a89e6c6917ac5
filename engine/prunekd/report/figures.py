"""The figures, drawn with matplotlib's object interface (no pyplot, no state shared between reports).

Each `draw_*` fills one Axes and returns whether it had anything to draw; `page_figures` makes SVGs for the page and
`write_overview` one PNG of four.
"""

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from prunekd.report.aggregate import Group, Summary
from prunekd.report.stats import Stat
from prunekd.report.style import LIGHT, Palette, sentinels, sorted_phases, to_variables
from prunekd.report.wording import arm_title, number, series_title

Drawer = Callable[[Axes, Summary, Palette], bool]
_DASHES = ("-", (0, (4, 1.6)), (0, (1, 1.4)), (0, (5, 1.4, 1, 1.4)), (0, (7, 2)))
_MARKERS = "osD^vP"
_SIZE = (4.5, 3.3)  # inches: on a phone about one to one
_BAR = 0.2  # inches a ledger bar takes


def draw_accuracy(axes: Axes, summary: Summary, palette: Palette) -> bool:
    """Final top-1 against keep ratio, a line for each arm and policy, error bars of one sd over seeds."""
    drawn = _lines(axes, summary, palette, lambda group: group.keep, lambda g: _scaled(g.top1, 100))
    _keep_axis(axes, summary)
    axes.set_ylabel("top-1 (%)")
    _legend(axes, "lower right")
    return drawn


def draw_speedup(axes: Axes, summary: Summary, palette: Palette) -> bool:
    """Speed-up over the same arm on all data: training alone, with one-off costs (hollow), and 1/r."""
    drawn = _lines(axes, summary, palette, lambda g: g.keep, lambda g: g.speedup_training, skip=("equal_time",))
    paid = False
    for at, ((arm, _), groups) in enumerate(_series(summary, ("equal_time",)).items()):
        points = [(g.keep, s.mean) for g in groups if g.keep < 1 and (s := _with_costs(summary, g))]
        colour = palette.arm(arm, summary.arms)
        if points:
            paid = True
            x, y = zip(*sorted(points), strict=True)
            marker = _MARKERS[_policy_rank(summary, groups) % len(_MARKERS)]
            axes.plot(x, y, ":", marker=marker, color=colour, mfc=palette["paper"], ms=4.5, lw=1, zorder=2 + at * 0.01)
    _ideal(axes, summary, palette)
    _keep_axis(axes, summary)
    _factor_axis(axes)
    axes.set_ylabel("speed-up over the same arm, all data")
    extra = [Line2D([], [], ls=":", marker="o", color=palette["muted"], mfc=palette["paper"], ms=4.5, lw=1)]
    _legend(axes, "upper right", extra if paid else [], ["with one-off costs"] if paid else [])
    return drawn


def draw_speedup_vs_plain(axes: Axes, summary: Summary, palette: Palette) -> bool:
    """Speed-up over plain training on all data, every one-off cost included."""
    drawn = _lines(axes, summary, palette, lambda group: group.keep, lambda group: group.speedup_vs_plain)
    axes.axhline(1, color=palette["muted"], lw=0.8, ls=(0, (2, 2)), zorder=1)
    _ideal(axes, summary, palette)
    _keep_axis(axes, summary)
    _factor_axis(axes)
    axes.set_ylabel("speed-up over plain, all data")
    _legend(axes, "upper right")
    return drawn


def draw_accuracy_over_time(axes: Axes, summary: Summary, palette: Palette) -> bool:
    """Final top-1 against total seconds: up and to the left is better."""
    drawn = _lines(axes, summary, palette, lambda group: group.total_seconds, lambda g: _scaled(g.top1, 100))
    axes.set_xscale("log")
    _plain_ticks(axes, "x")
    axes.set_xlabel("training + one-off costs (s, log scale)")
    axes.set_ylabel("top-1 (%)")
    _legend(axes, "lower right")
    return drawn


def draw_epochs(axes: Axes, summary: Summary, palette: Palette) -> bool:
    """Median epoch seconds against the share kept, with the fit a * r + c of each arm."""
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
    ticks = _apart([0.0, *summary.keeps], lambda value: value, 0.07)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("share of the samples kept, r")
    axes.set_ylabel("seconds per epoch (median, IQR)")
    _legend(axes, "upper left")
    return bool(summary.fits)


def draw_ledger(axes: Axes, summary: Summary, palette: Palette) -> bool:
    """Mean seconds of a run by phase, one bar for each group, one-off costs included."""
    groups = list(summary.groups)
    bars = [{**{n: g.phases.get(n, 0.0) for n in g.phases}, **_add(g)} for g in groups]
    left = np.zeros(len(groups))
    for phase in sorted_phases([name for bar in bars for name in bar]):
        widths = np.array([bar.get(phase, 0.0) for bar in bars])
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


def _add(group: Group) -> dict[str, float]:
    """One-off costs on top of what the run's own ledger has under the same name."""
    return {name: seconds + group.phases.get(name, 0.0) for name, seconds in group.one_off.items()}


PAGE_FIGURES: dict[str, Drawer] = {
    "accuracy": draw_accuracy,
    "speedup": draw_speedup,
    "time": draw_accuracy_over_time,
    "plain": draw_speedup_vs_plain,
    "epochs": draw_epochs,
    "ledger": draw_ledger,
}


def page_figures(summary: Summary) -> dict[str, str]:
    """The figures that have data, as SVG elements coloured by CSS variables, by name."""
    found = {}
    for name, draw in PAGE_FIGURES.items():
        palette = sentinels()
        size = (_SIZE[0], _ledger_height(summary)) if name == "ledger" else _SIZE
        with mpl.rc_context(_settings(palette, name)):
            figure = Figure(figsize=size, layout="constrained")
            figure.patch.set_alpha(0)
            if draw(_axes(figure, 111), summary, palette):
                found[name] = _svg(figure)
    return found


def write_overview(summary: Summary, path: Path, title: str) -> None:
    """Draw accuracy, speed-up, accuracy over time and the ledger into one PNG of 150 dots per inch."""
    palette = Palette(LIGHT)
    with mpl.rc_context(_settings(palette, "overview") | {"font.size": 9}):
        height = max(4.0, _ledger_height(summary) + 0.4)
        figure = Figure(figsize=(14.4, 4.2 + height), dpi=150, layout="constrained", facecolor=palette["paper"])
        FigureCanvasAgg(figure)
        halves: Any = figure.subfigures(2, 1, height_ratios=(4.2, height))
        top, bottom = halves
        top.suptitle(title, fontsize=12.5, fontweight="bold", color=palette["ink"], wrap=True)
        headings = {"accuracy": "Accuracy", "speedup": "Speed-up", "time": "Accuracy over time"}
        for at, (name, heading) in enumerate(headings.items()):
            _panel(_axes(top, 131 + at), heading, PAGE_FIGURES[name], summary, palette)
        _panel(_axes(bottom, 111), "", draw_ledger, summary, palette)
        figure.savefig(path, format="png")


def _panel(axes: Axes, heading: str, draw: Drawer, summary: Summary, palette: Palette) -> None:
    if not draw(axes, summary, palette):
        axes.clear()
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no finished run to show", ha="center", transform=axes.transAxes, color=palette["muted"])
    axes.set_title(heading, loc="left", fontweight="bold", color=palette["ink"])


def _axes(figure: Figure, position: int) -> Axes:
    axes: Axes = figure.add_subplot(position)
    axes.set_axisbelow(True)
    return axes


def _ledger_height(summary: Summary) -> float:
    return 1.3 + _BAR * max(4, len(summary.groups))


def _settings(palette: Palette, salt: str) -> dict[str, object]:
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


def _svg(figure: Figure) -> str:
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', svg, count=1)
    return to_variables(svg.replace("xlink:href", "href")).strip()


def _series(summary: Summary, skip: Sequence[str] = ()) -> dict[tuple[str, str], list[Group]]:
    return {key: groups for key, groups in summary.series().items() if key[0] not in skip}


def _policy_rank(summary: Summary, groups: Sequence[Group]) -> int:
    """Position of a line's policy among all: 0 for an unselected line, as for the first policy."""
    policies = list(dict.fromkeys(g.policy for g in summary.groups if g.policy != "all"))
    mine = [g.policy for g in groups if g.policy != "all"]
    return policies.index(mine[0]) if mine else 0


def _lines(
    axes: Axes,
    summary: Summary,
    palette: Palette,
    x: Callable[[Group], float],
    y: Callable[[Group], Stat | None],
    skip: Sequence[str] = (),
) -> bool:
    """One line with error bars for each (arm, policy); False if there is no value at all."""
    drawn = False
    for (arm, policy), groups in _series(summary, skip).items():
        points = [(x(group), stat) for group in groups if (stat := y(group)) is not None]
        if not points:
            continue
        rank = _policy_rank(summary, groups)
        axes.errorbar(
            [at for at, _ in points],
            [stat.mean for _, stat in points],
            [stat.sd or 0.0 for _, stat in points],
            color=palette.arm(arm, summary.arms),
            ls=_DASHES[rank % len(_DASHES)],
            marker=_MARKERS[rank % len(_MARKERS)],
            ms=4.5,
            capsize=2,
            elinewidth=1,
            label=series_title(arm, policy),
            zorder=3,
        )
        drawn = True
    return drawn


def _with_costs(summary: Summary, group: Group) -> Stat | None:
    """Total speed-up over the same arm, for the two arms that have one of their own."""
    return {"plain": group.speedup_vs_plain, "kd": group.speedup_vs_kd}.get(group.arm) if group.one_off else None


def _ideal(axes: Axes, summary: Summary, palette: Palette) -> None:
    keeps = [keep for keep in summary.keeps if keep > 0]
    if not keeps or keeps[0] == 1:
        return
    line = np.geomspace(keeps[0], 1, 32)
    axes.plot(line, 1 / line, color=palette["muted"], lw=1, ls=(0, (2, 2)), label="ideal 1/r", zorder=1)


def _keep_axis(axes: Axes, summary: Summary) -> None:
    """Logarithmic, so that 1/r is straight; ticks at the ratios that were measured."""
    axes.set_xscale("log")
    ticks = _apart(list(summary.keeps), np.log, 0.07)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if summary.keeps:
        span = max(1.1, (1 / summary.keeps[0]) ** 0.04)
        axes.set_xlim(summary.keeps[0] / span, max(summary.keeps) * span)
    axes.set_xlabel("keep ratio r (log scale)")


def _apart(values: list[float], scale: Callable[[float], float], gap: float) -> list[float]:
    """Those of the rising `values` whose labels do not run into each other; the largest always stays."""
    if len(values) < 2:
        return values
    whole = scale(values[-1]) - scale(values[0])
    chosen = [values[-1]]
    for value in reversed(values[:-1]):
        if scale(chosen[-1]) - scale(value) >= gap * whole:
            chosen.append(value)
    return chosen[::-1]


def _factor_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    _plain_ticks(axes, "y")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))


def _plain_ticks(axes: Axes, which: str) -> None:
    """A logarithmic axis with ticks at 1, 2, 5 times powers of ten, written out."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    steps = [m * 10.0**e for e in range(-4, 9) for m in (1, 2, 5)]
    inside = [step for step in steps if low <= step <= high]
    if len(inside) < 3:  # a narrow range: let every digit have a tick
        inside = [s for e in range(-4, 9) for m in range(10, 100, 5) if low <= (s := m * 10.0 ** (e - 1)) <= high]
        inside = inside[:: max(1, len(inside) // 5)]
    axis.set_major_locator(FixedLocator(inside))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _legend(axes: Axes, where: str, handles: Sequence[Line2D] = (), labels: Sequence[str] = ()) -> None:
    known, names = axes.get_legend_handles_labels()
    if known:
        axes.legend([*known, *handles], [*names, *labels], loc=where)


def _scaled(stat: Stat | None, factor: float) -> Stat | None:
    return stat and Stat(stat.mean * factor, None if stat.sd is None else stat.sd * factor, stat.n)
