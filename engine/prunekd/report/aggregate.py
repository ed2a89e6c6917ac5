"""From runs to figures: means and spread over seeds, speed-ups, the constant part of an epoch, break-even.

Definitions (the page states them too). r is the keep ratio; a *group* is all seeds of one (arm, policy, keep).
- speedup_training: training seconds of the same arm on all data / those of the group, seed by seed.
- speedup_vs_plain, speedup_vs_kd: total seconds of that arm on all data / total seconds of the group, seed by seed;
  total = training + everything that had to be done once for such a run (see `one_off_seconds`).
- ideal: samples the full run saw / samples the group saw, which is 1/r if the policy kept exactly r.
- fit: epoch seconds = a * r + c, least squares on relative errors; c is what an epoch costs without any sample.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any

import numpy as np

from prunekd.pruning.policies import POLICIES
from prunekd.report.results import Run, Sweep

WHOLE = "all"  # policy of a run in which nothing was selected


@dataclass(frozen=True, slots=True)
class Stat:
    """Mean, sample standard deviation (None for one value) and number of values."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Quartiles:
    """Median and interquartile range of `n` values."""

    median: float
    q1: float
    q3: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All seeds of one (arm, policy, keep). None: not measured, or there is nothing to compare with.

    one_off maps a cost's name to the seconds such a run needs once; break_even_* is the number of runs after which
    those costs are saved again (inf: never, None: nothing to compare with or nothing to pay back).
    """

    arm: str
    policy: str
    keep: float
    runs: tuple[Run, ...]
    kept_share: float
    epochs: int
    ideal: float | None
    top1: Stat | None
    best_top1: Stat | None
    train_seconds: Stat
    train_seconds_median: float
    epoch_seconds: Quartiles
    one_off: Mapping[str, float]
    speedup_training: Stat | None
    speedup_vs_plain: Stat | None
    speedup_vs_kd: Stat | None
    data_wait_share: Stat | None
    images_per_second: Stat | None
    read_amplification: Stat | None
    phases: Mapping[str, float]
    break_even_arm: float | None
    break_even_plain: float | None

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def total_seconds(self) -> float:
        """Mean training seconds plus one-off costs."""
        return self.train_seconds.mean + sum(self.one_off.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """epoch seconds = slope * r + constant over an arm's runs; residuals in percent of the fitted value.

    residuals maps the kept share to the signed residual of the runs' median there; with two ratios the line goes
    through both points and worst_percent is None, for it would show nothing.
    """

    arm: str
    slope: float
    constant: float
    residuals: Mapping[float, float]
    worst_percent: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualTime:
    """KD on pruned data against KD on all data for r x epochs; difference in points (positive: pruning won)."""

    keep: float
    policy: str
    difference: float
    spread: float | None
    time_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Everything the page, the tables and the pictures show."""

    sweep: Sweep
    groups: tuple[Group, ...]
    fits: tuple[Fit, ...]
    equal_time: tuple[EqualTime, ...]

    def find(self, arm: str, keep: float, policy: str | None = None) -> Group | None:
        """The group with these values; without a policy, the first of them."""
        for group in self.groups:
            if group.arm == arm and group.keep == keep and policy in (None, group.policy):
                return group
        return None

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(group.arm for group in self.groups))

    @property
    def keeps(self) -> tuple[float, ...]:
        return tuple(sorted({group.keep for group in self.groups}))

    def series(self) -> dict[tuple[str, str], list[Group]]:
        """Lines of the figures: groups of each (arm, policy) by rising keep, ending in the arm's full-data group."""
        lines: dict[tuple[str, str], list[Group]] = {}
        for group in self.groups:
            lines.setdefault((group.arm, group.policy), []).append(group)
        for arm in self.arms:
            full = self.find(arm, 1.0)
            others = [key for key in lines if key[0] == arm and key[1] != WHOLE]
            if full is None or full.policy != WHOLE or not others:
                continue
            for key in others:
                lines[key].append(full)
            lines[arm, WHOLE].remove(full)
        return {key: sorted(line, key=lambda g: g.keep) for key, line in lines.items() if line}


def summarize_sweep(sweep: Sweep) -> Summary:
    """Aggregate a sweep's finished runs; see the module's docstring for the definitions."""
    grouped: dict[tuple[str, str, float], list[Run]] = {}
    for run in sweep.runs:
        grouped.setdefault((run.arm, run.policy, run.keep), []).append(run)
    order = {arm: at for at, arm in enumerate(sweep.facts.get("arms", []))}
    keys = sorted(grouped, key=lambda key: (order.get(key[0], len(order)), key[0], -key[2], key[1] != WHOLE, key[1]))
    full_runs = {arm: _full_runs(arm, grouped) for arm in {key[0] for key in keys} | {"plain", "kd"}}
    groups = tuple(_group(sweep, key, grouped[key], full_runs) for key in keys)
    arms = dict.fromkeys(key[0] for key in keys)
    fits = tuple(fit for arm in arms if (fit := fit_epochs(arm, [r for r in sweep.runs if r.arm == arm])))
    return Summary(sweep=sweep, groups=groups, fits=fits, equal_time=_equal_time(groups))


def _full_runs(arm: str, grouped: Mapping[tuple[str, str, float], list[Run]]) -> list[Run]:
    """The arm's runs on all data. The equal-time control has none of its own: it is cut short from kd's."""
    for source in (arm, "kd") if arm == "equal_time" else (arm,):
        candidates = [key for key in grouped if key[0] == source and key[2] == 1.0]
        for key in sorted(candidates, key=lambda key: key[1] != WHOLE):
            return grouped[key]
    return []


def _group(
    sweep: Sweep, key: tuple[str, str, float], runs: Sequence[Run], full_runs: Mapping[str, Sequence[Run]]
) -> Group:
    arm, policy, keep = key
    one_off = {name: seconds for name, seconds in sweep.costs.items() if _needs(sweep, name, arm, policy, keep)}
    mine = sum(one_off.values())

    def total(own_arm: str) -> float:
        """One-off seconds of `own_arm` on all data."""
        return sum(s for name, s in sweep.costs.items() if _needs(sweep, name, own_arm, WHOLE, 1.0))

    def against(other: str, fixed: float, other_fixed: float) -> Stat | None:
        return _paired(runs, full_runs[other], lambda a, b: (b.train_seconds + other_fixed) / (a.train_seconds + fixed))

    every_epoch = [seconds for run in runs for seconds in run.epoch_seconds]
    seen = mean(run.samples_kept * run.epochs for run in runs)
    full = full_runs[arm]
    return Group(
        arm=arm,
        policy=policy,
        keep=keep,
        runs=tuple(runs),
        kept_share=mean(run.kept_share for run in runs),
        epochs=runs[0].epochs,
        ideal=mean(run.samples_kept * run.epochs for run in full) / seen if full else None,
        top1=_stat(run.top1 for run in runs),
        best_top1=_stat(run.best_top1 for run in runs),
        train_seconds=_known([run.train_seconds for run in runs]),
        train_seconds_median=median(run.train_seconds for run in runs),
        epoch_seconds=_quartiles(every_epoch),
        one_off=one_off,
        speedup_training=against(arm, 0.0, 0.0),
        speedup_vs_plain=against("plain", mine, total("plain")),
        speedup_vs_kd=against("kd", mine, total("kd")),
        data_wait_share=_stat(run.data_wait_share for run in runs),
        images_per_second=_stat(run.images_per_second for run in runs),
        read_amplification=_stat(run.read_amplification for run in runs),
        phases={name: mean(run.phases.get(name, 0.0) for run in runs) for run in runs for name in run.phases},
        break_even_arm=_break_even(runs, full, one_off, total(arm), keep),
        break_even_plain=_break_even(runs, full_runs["plain"], one_off, total("plain"), keep),
    )


def _needs(sweep: Sweep, cost: str, arm: str, policy: str, keep: float) -> bool:
    """Whether a run of this kind needs what `cost` paid for.

    Scores are needed by policies that rank by one (an unknown policy is taken to) and by logit reshaping; the
    teacher by whoever distils or scores; a cost of another name by every pruned run.
    """
    distils = arm != "plain"
    pruned = policy != WHOLE and keep < 1
    ranks = pruned and (policy not in POLICIES or POLICIES[policy].needs_score)
    scores = ranks or (sweep.reshaping and distils)
    return {"score": scores, "select": pruned, "teacher": distils or scores, "labels": distils}.get(cost, pruned)


def _paired(runs: Sequence[Run], others: Sequence[Run], ratio: Callable[[Run, Run], float]) -> Stat | None:
    """`ratio` over the seeds both have: runs of one seed took turns, so what disturbed one disturbed the other."""
    by_seed = {run.seed: run for run in others}
    return _stat(ratio(run, by_seed[run.seed]) for run in runs if run.seed in by_seed)


def _break_even(
    runs: Sequence[Run], full: Sequence[Run], one_off: Mapping[str, float], other_fixed: float, keep: float
) -> float | None:
    """Runs until the one-off costs beyond the baseline's own are saved. A selection is paid for in every run."""
    each = one_off.get("select", 0.0)
    once = sum(one_off.values()) - each - other_fixed
    if not full or keep == 1 or once <= 0:
        return None
    saved = mean(run.train_seconds for run in full) - mean(run.train_seconds for run in runs) - each
    return math.ceil(once / saved) if saved > 0 else math.inf


def fit_epochs(arm: str, runs: Sequence[Run]) -> Fit | None:
    """Fit epoch seconds = slope * r + constant to the runs' median epochs; None with fewer than two ratios.

    r is the share really kept. Errors count relative to the epoch, so that short epochs weigh as much as long ones.
    """
    points = [(run.kept_share, median(run.epoch_seconds)) for run in runs]
    by_share: dict[float, list[float]] = {}
    for share, seconds in points:
        by_share.setdefault(round(share, 4), []).append(seconds)
    if len(by_share) < 2 or min(seconds for _, seconds in points) <= 0:
        return None
    r, y = np.array(points).T
    slope, constant = np.linalg.lstsq(np.stack([r / y, 1 / y], axis=1), np.ones_like(y), rcond=None)[0]
    residuals = {
        share: float(100 * (median(seconds) / (slope * share + constant) - 1))
        for share, seconds in sorted(by_share.items())
    }
    worst = max(abs(value) for value in residuals.values()) if len(residuals) > 2 else None
    return Fit(arm=arm, slope=float(slope), constant=float(constant), residuals=residuals, worst_percent=worst)


def _equal_time(groups: Sequence[Group]) -> tuple[EqualTime, ...]:
    controls = {group.keep: group for group in groups if group.arm == "equal_time"}
    found = []
    for group in groups:
        control = controls.get(group.keep)
        if group.arm != "kd" or control is None or group.top1 is None or control.top1 is None:
            continue
        found.append(
            EqualTime(
                keep=group.keep,
                policy=group.policy,
                difference=100 * (group.top1.mean - control.top1.mean),
                spread=spread(group.top1, control.top1),
                time_ratio=group.train_seconds.mean / control.train_seconds.mean,
            )
        )
    return tuple(found)


def spread(a: Stat, b: Stat) -> float | None:
    """Standard deviation over seeds of a difference of two accuracies, in points; None if either has one seed."""
    return None if a.sd is None or b.sd is None else 100 * math.hypot(a.sd, b.sd)


def _stat(values: Iterable[float | None]) -> Stat | None:
    known = [value for value in values if value is not None]
    return _known(known) if known else None


def _known(values: Sequence[float]) -> Stat:
    return Stat(mean(values), stdev(values) if len(values) > 1 else None, len(values))


def _quartiles(values: Sequence[float]) -> Quartiles:
    q1, middle, q3 = (float(q) for q in np.percentile(values, (25, 50, 75)))
    return Quartiles(middle, q1, q3, len(values))


def plain_values(value: Any) -> Any:
    """Turn infinities into the word "never" for JSON, in a tree of dictionaries and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    return "never" if value == math.inf else value
