"""The figures for plotly.js: traces and layouts as plain values, coloured by the page's CSS variables.

A value `var(--role)` is replaced by the page's script with the colour of the scheme in use. Limits are those of the
drawn figure, so that both versions look alike.
"""

import math
from typing import Any

from prunekd.reporting.aggregate import Summary
from prunekd.reporting.axes import log_ticks
from prunekd.reporting.figures import Picture
from prunekd.reporting.group import Group
from prunekd.reporting.style import arm_role, phase_role, sorted_phases
from prunekd.reporting.views import VIEWS, View, bars, lines, policy_rank, top1_percent, with_costs
from prunekd.reporting.wording import arm_title, number, plural, runs_until, series_title

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon")
_BAR_PIXELS, _LEDGER_MARGIN = 19, 56

Plot = dict[str, Any]


def plot(name: str, summary: Summary, picture: Picture) -> Plot:
    """`data` and `layout` of one figure; `height` in pixels if the data decide it; `legend` if it has one."""
    if name == "ledger":
        return _ledger(summary)
    if name == "epochs":
        return _epochs(summary, picture)
    return _view(VIEWS[name], summary, picture)


def legend_entries(summary: Summary) -> list[dict[str, str]]:
    """One entry for each (arm, policy), for the buttons that show and hide it in all figures."""
    return [
        {
            "series": _key(*key),
            "title": series_title(*key),
            "colour": _colour(summary, key[0]),
            "dash": _dash(summary, key),
        }
        for key in summary.series()
    ]


def _view(view: View, summary: Summary, picture: Picture) -> Plot:
    data: list[Plot] = []
    if view.ideal and summary.keeps:
        data.append(_reference([summary.keeps[0], 1], [1 / summary.keeps[0], 1], "ideal 1/r", dash="dot"))
    if view.front and (front := summary.front()):
        accuracy = [value.mean for group in front if (value := top1_percent(group))]
        steps = _reference([g.total_seconds for g in front], accuracy, "Pareto front", width=6, shape="hv")
        data.append({**steps, "opacity": 0.3})
    for key, points in lines(summary, view).items():
        data.append(_line(summary, key, points))
        paid = [(x, value.mean, group) for x, _, group in points if (value := with_costs(group))]
        if view is VIEWS["speedup"] and paid:
            data.append(_hollow(summary, key, paid))
    layout = _layout(view.x_label, view.y_label, picture, view.log)
    if view.over_keep:
        layout["xaxis"] |= {"tickvals": list(summary.keeps), "ticktext": [f"{keep:g}" for keep in summary.keeps]}
    if view.unit:
        layout["yaxis"] |= {"ticktext": [f"{text}{view.unit}" for text in layout["yaxis"]["ticktext"]]}
    if "y" in view.log:
        layout["shapes"] = [_level(1)]
    return {"data": data, "layout": layout}


def _line(summary: Summary, key: tuple[str, str], points: list[tuple[float, Any, Group]]) -> Plot:
    colour = _colour(summary, key[0])
    symbol = _SYMBOLS[policy_rank(summary, key) % len(_SYMBOLS)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": series_title(*key),
        "x": [x for x, _, _ in points],
        "y": [value.mean for _, value, _ in points],
        "error_y": {"array": [value.sd or 0.0 for _, value, _ in points], "color": colour, "thickness": 1, "width": 3},
        "text": [describe(group) for _, _, group in points],
        "hoverinfo": "text",
        "line": {"color": colour, "width": 2, "dash": _dash(summary, key)},
        "marker": {"color": colour, "size": 7, "symbol": symbol},
        "meta": {"series": _key(*key)},
    }


def _hollow(summary: Summary, key: tuple[str, str], paid: list[tuple[float, float, Group]]) -> Plot:
    colour = _colour(summary, key[0])
    symbol = _SYMBOLS[policy_rank(summary, key) % len(_SYMBOLS)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{series_title(*key)}, with one-off costs",
        "x": [x for x, _, _ in paid],
        "y": [y for _, y, _ in paid],
        "text": [f"with one-off costs: {y:.2f}x<br>{describe(group)}" for _, y, group in paid],
        "hoverinfo": "text",
        "line": {"color": colour, "width": 1, "dash": "dot"},
        "marker": {"color": colour, "size": 7, "symbol": f"{symbol}-open"},
        "meta": {"series": _key(*key)},
    }


def _epochs(summary: Summary, picture: Picture) -> Plot:
    data: list[Plot] = []
    for fit in summary.fits:
        colour = _colour(summary, fit.arm)
        mine = [group for group in summary.groups if group.arm == fit.arm]
        series = [_key(*key) for key in summary.series() if key[0] == fit.arm]
        middles = [group.epoch_seconds for group in mine]
        errors = {"array": [q.q3 - q.median for q in middles], "arrayminus": [q.median - q.q1 for q in middles]}
        sign = "+" if fit.constant >= 0 else "-"
        told = f"{arm_title(fit.arm)}: {number(fit.slope)} r {sign} {number(abs(fit.constant))} s"
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": arm_title(fit.arm),
                "x": [group.kept_share for group in mine],
                "y": [q.median for q in middles],
                "error_y": {**errors, "symmetric": False, "color": colour, "thickness": 1, "width": 3},
                "text": [f"{number(g.epoch_seconds.median)} s per epoch<br>{describe(g)}" for g in mine],
                "hoverinfo": "text",
                "marker": {"color": colour, "size": 7},
                "meta": {"series": series},
            }
        )
        fitted = _reference([0, 1], [fit.constant, fit.slope + fit.constant], told, colour=colour, width=1.5)
        data.append({**fitted, "meta": {"series": series}})
    return {"data": data, "layout": _layout("share of the samples seen, r", "seconds per epoch", picture, "")}


def _ledger(summary: Summary) -> Plot:
    groups = list(summary.groups)
    seconds = [bars(group) for group in groups]
    names = [f"{series_title(group.arm, group.policy)} {group.keep:g}" for group in groups]
    data = []
    for phase in sorted_phases([name for bar in seconds for name in bar]):
        told = phase.replace("_", " ")
        widths = [bar.get(phase, 0.0) for bar in seconds]
        if sum(widths) > 0:
            text = [
                f"{name}<br>{told}: {number(width)} s of {number(sum(bar.values()))} s"
                for name, width, bar in zip(names, widths, seconds, strict=True)
            ]
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": told,
                    "x": widths,
                    "y": names,
                    "hovertext": text,
                    "hoverinfo": "text",
                    "textposition": "none",
                    "marker": {"color": f"var(--{phase_role(phase)})"},
                }
            )
    layout = _axes("seconds per run", "")
    layout["yaxis"] |= {"tickfont": {"size": 11}}
    layout |= {"barmode": "stack", "bargap": 0.28, "margin": {"l": 8, "r": 8, "t": 8, "b": 40}}
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False, "automargin": True, "ticks": ""}
    height = _LEDGER_MARGIN + _BAR_PIXELS * max(4, len(groups))
    return {"data": data, "layout": layout, "height": height, "legend": True}


def _reference(
    x: list[float], y: list[float], name: str, *, colour: str = "var(--muted)", width: float = 1.5, **line: str
) -> Plot:
    """A line that helps to read the others; it answers to no button unless it is given a series."""
    style = {"color": colour, "width": width, **line}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "hoverinfo": "name", "line": style}


def _level(y: float) -> Plot:
    line = {"color": "var(--muted)", "width": 1}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line, "layer": "below"}


def _layout(x_label: str, y_label: str, picture: Picture, log: str) -> Plot:
    layout = _axes(x_label, y_label)
    for letter, limits in (("x", picture.x_limits), ("y", picture.y_limits)):
        if letter in log:
            low, high = (math.log10(limit) for limit in limits)
            ticks = log_ticks(*limits)
            layout[f"{letter}axis"] |= {"type": "log", "range": [low, high], "tickvals": ticks}
            layout[f"{letter}axis"] |= {"ticktext": [f"{tick:,.6g}" for tick in ticks]}
        else:
            layout[f"{letter}axis"] |= {"range": list(limits)}
    return layout


def _axes(x_label: str, y_label: str) -> Plot:
    def axis(label: str) -> Plot:
        return {
            "title": {"text": label, "standoff": 8},
            "color": "var(--muted)",
            "gridcolor": "var(--grid)",
            "linecolor": "var(--muted)",
            "showline": True,
            "zeroline": False,
            "ticks": "outside",
            "ticklen": 4,
        }

    return {
        "xaxis": axis(x_label),
        "yaxis": axis(y_label) | {"automargin": True},
        "margin": {"l": 56, "r": 10, "t": 10, "b": 44},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--muted)", "font": {"color": "var(--ink)"}},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "var(--ink)", "size": 12, "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"},
    }


def describe(group: Group) -> str:
    """What a reader sees when pointing at a group."""
    rows = [f"<b>{series_title(group.arm, group.policy)} at keep {group.keep:g}</b>"]
    if group.top1:
        spread = "" if group.top1.sd is None else f" ± {100 * group.top1.sd:.1f}"
        rows.append(f"top-1 {100 * group.top1.mean:.1f}{spread} %")
    rows.append(f"{number(group.train_seconds.mean)} s of training{', extrapolated' if group.extrapolated else ''}")
    if group.one_off:
        rows.append(f"{number(sum(group.one_off.values()))} s of one-off costs")
    if group.speedup_training:
        rows.append(f"{group.speedup_training.mean:.2f}x over all data")
    if group.break_even_arm is not None:
        rows.append(f"pays back after {runs_until(group.break_even_arm)}")
    return "<br>".join([*rows, plural(len(group.runs), "seed")])


def _key(arm: str, policy: str) -> str:
    return f"{arm}/{policy}"


def _colour(summary: Summary, arm: str) -> str:
    return f"var(--{arm_role(arm, summary.arms)})"


def _dash(summary: Summary, key: tuple[str, str]) -> str:
    return _DASHES[policy_rank(summary, key) % len(_DASHES)]
