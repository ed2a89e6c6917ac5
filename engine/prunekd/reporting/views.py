"""What each figure shows, once for the drawn and the interactive version."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from prunekd.reporting.aggregate import Summary
from prunekd.reporting.group import Group
from prunekd.reporting.stats import Stat
from prunekd.sweep.arms import ARMS


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A figure of one line for each (arm, policy).

    Attributes:
        title, caption: what the page says above it.
        x, y: a group's place; None leaves the group out.
        x_label, y_label: with units.
        log: which axes are logarithmic: "x", "xy" or "".
        over_keep: x is the keep ratio, with ticks where it was measured.
        ideal: draws 1/r and the break-even line at 1.
        front: draws the Pareto front.
        unit: follows the numbers of a logarithmic y axis.
        legend: where the drawn version has its legend.
    """

    title: str
    caption: str
    x: Callable[[Group], float]
    y: Callable[[Group], Stat | None]
    x_label: str
    y_label: str
    log: str = ""
    over_keep: bool = False
    ideal: bool = False
    front: bool = False
    unit: str = ""
    legend: str = "best"


def place(group: Group) -> float:
    """Where a group stands on an axis of keep ratios: what was asked for, or for dynamic arms what was really seen."""
    return group.kept_share if group.settings.dynamic else group.keep


def top1_percent(group: Group) -> Stat | None:
    """Final top-1 in percent."""
    return group.top1 and group.top1.scaled(100)


def payback(group: Group) -> Stat | None:
    """Runs until one-off costs are saved again; None if never, or if there are none."""
    runs = group.break_even_arm
    return None if runs is None or runs == math.inf else Stat(runs, None, len(group.runs))


_KEEP = "keep ratio r (log scale)"

VIEWS: dict[str, View] = {
    "accuracy": View(
        title="Accuracy against keep ratio",
        caption="Final top-1 in validation; bars are one standard deviation over seeds.",
        x=place,
        y=top1_percent,
        x_label=_KEEP,
        y_label="top-1 (%)",
        log="x",
        over_keep=True,
        legend="lower right",
    ),
    "speedup": View(
        title="Speed-up against keep ratio",
        caption="Training seconds of the same kind of run on all data, over those at keep r, seed by seed. Hollow: "
        "with scoring, soft labels, selection, compaction and whatever else was done once counted in full. The thin "
        "line is the ideal 1/r; the line at 1 is break-even.",
        x=place,
        y=lambda group: group.speedup_training,
        x_label=_KEEP,
        y_label="speed-up over all data",
        log="xy",
        over_keep=True,
        ideal=True,
        unit="x",
        legend="upper right",
    ),
    "break_even": View(
        title="Break-even",
        caption="Runs until scoring, soft labels, compaction and whatever else was done once are paid for by the time "
        "a run saves against the same kind of run on all data. Below 1, the first run already pays; what never pays "
        "has no point here, and the tables say never.",
        x=place,
        y=payback,
        x_label=_KEEP,
        y_label="runs until costs are saved",
        log="xy",
        over_keep=True,
        legend="upper left",
    ),
    "time": View(
        title="Accuracy against wall-clock",
        caption="Training seconds plus one-off costs of one run. Up and to the left is better; the grey steps are the "
        "Pareto front, runs that no other beats in both.",
        x=lambda group: group.total_seconds,
        y=top1_percent,
        x_label="training + one-off costs (s, log scale)",
        y_label="top-1 (%)",
        log="x",
        front=True,
        legend="lower right",
    ),
    "plain": View(
        title="Against plain training on all data",
        caption="The honest baseline: total seconds of plain training on all samples over total seconds of the run, "
        "one-off costs included. Below 1 the run cost more than not distilling and not pruning at all.",
        x=place,
        y=lambda group: group.speedup_vs_plain,
        x_label=_KEEP,
        y_label="speed-up over plain, all data",
        log="xy",
        over_keep=True,
        ideal=True,
        unit="x",
        legend="upper right",
    ),
    "reads": View(
        title="Read amplification",
        caption="Bytes read from the store over the bytes of the samples asked for. 1 is a reader that touches nothing "
        "that was pruned.",
        x=place,
        y=lambda group: group.read_amplification,
        x_label=_KEEP,
        y_label="bytes read / payload",
        log="x",
        over_keep=True,
    ),
}

OTHER_FIGURES = {
    "epochs": (
        "Seconds of an epoch",
        "Median epoch against the share of samples really seen, with the fit a r + c of each arm; c is what an epoch "
        "costs without any sample.",
    ),
    "ledger": ("Where the seconds went", "Mean of a run by phase, with its one-off costs."),
}


def lines(summary: Summary, view: View) -> dict[tuple[str, str], list[tuple[float, Stat, Group]]]:
    """The points of each line of a view, those that have a value."""
    return {
        key: points
        for key, groups in summary.series().items()
        if (points := [(view.x(group), value, group) for group in groups if (value := view.y(group)) is not None])
    }


def with_costs(group: Group) -> Stat | None:
    """Speed-up with everything done once counted, for pruned groups that have such costs."""
    return group.speedup_total if group.one_off and group.keep < 1 else None


def policy_rank(summary: Summary, key: tuple[str, str]) -> int:
    """Which dash and marker a line has: the place of its policy among those of arms that have several; 0 otherwise."""
    arm, policy = key
    if policy == "all" or (arm in ARMS and ARMS[arm].policy):
        return 0
    policies = list(dict.fromkeys(g.policy for g in summary.groups if g.policy != "all" and not g.settings.policy))
    return policies.index(policy) if policy in policies else 0


def bars(group: Group) -> dict[str, float]:
    """Mean seconds of a run by phase, with one-off costs on top of what its ledger has under the same name."""
    return {**group.phases, **{name: s + group.phases.get(name, 0.0) for name, s in group.one_off.items()}}
