"""From runs to figures: means and spread over seeds, speed-ups, the constant part of an epoch, break-even.

Definitions (the page states them too). r is the keep ratio; a *group* is all seeds of one (arm, policy, keep).
- speedup_training: training seconds of the same arm on all data / those of the group, seed by seed.
- speedup_vs_plain, speedup_vs_kd: total seconds of that arm on all data / total seconds of the group, seed by seed;
  total = training + everything that had to be done once for such a run (see `one_off_seconds`).
- ideal: samples the full run saw / samples the group saw, which is 1/r if the policy kept exactly r.
- fit: epoch seconds = a * r + c, least squares on relative errors; c is what an epoch costs without any sample.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from prunekd.pruning.policies import POLICIES
from prunekd.reporting.controls import EqualTime, Fit, compare_equal_time, fit_epochs
from prunekd.reporting.group import Group
from prunekd.reporting.results import Run, Sweep
from prunekd.reporting.stats import Stat, quartiles, stat, stat_of
from prunekd.sweep.arms import ARMS, Arm, arms_of
from prunekd.sweep.grid import WHOLE


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
        """Lines of the figures: groups of each (arm, policy) by rising keep, ending in its full-data group."""
        lines: dict[tuple[str, str], list[Group]] = {}
        for group in self.groups:
            lines.setdefault((group.arm, group.policy), []).append(group)
        joined = set()
        for (arm, _), line in lines.items():
            full = self.find(line[0].settings.reference, 1.0, WHOLE)
            if full is not None and full not in line:
                line.append(full)
                joined |= {(full.arm, full.policy)} if full.arm == arm else set()
        # a full-data point that ends another line of its arm is no line of its own
        kept = {key: line for key, line in lines.items() if key not in joined or len(line) > 1}
        return {key: sorted(line, key=lambda g: g.keep) for key, line in kept.items()}

    def front(self) -> list[Group]:
        """The Pareto front: groups that no other beats in both total seconds and accuracy, by rising seconds."""
        found: list[Group] = []
        for group in sorted((g for g in self.groups if g.top1), key=lambda g: g.total_seconds):
            if not found or _accuracy(group) > _accuracy(found[-1]):
                found.append(group)
        return found


def _accuracy(group: Group) -> float:
    assert group.top1 is not None
    return group.top1.mean


def summarize_sweep(sweep: Sweep) -> Summary:
    """Aggregate a sweep's finished runs; see the module's docstring for the definitions."""
    grouped: dict[tuple[str, str, float], list[Run]] = {}
    for run in sweep.runs:
        grouped.setdefault((run.arm, run.policy, run.keep), []).append(run)
    arms = arms_of(sweep.facts)
    arms |= {name: Arm(name=name, title=name, summary=name) for name, _, _ in grouped if name not in arms}
    order = {arm: at for at, arm in enumerate(sweep.facts.get("arms", []))}
    keys = sorted(grouped, key=lambda key: (order.get(key[0], len(order)), key[0], -key[2], key[1] != WHOLE, key[1]))
    groups = tuple(_group(sweep, arms, key, grouped) for key in keys)
    by_arm: dict[str, list[Group]] = {}
    for group in groups:
        by_arm.setdefault(group.arm, []).append(group)
    fits = tuple(fit for arm, mine in by_arm.items() if (fit := fit_epochs(arm, mine)))
    return Summary(sweep=sweep, groups=groups, fits=fits, equal_time=compare_equal_time(groups))


def _full_runs(arm: Arm, grouped: Mapping[tuple[str, str, float], list[Run]]) -> list[Run]:
    """The runs on all data that an arm is compared with."""
    candidates = [key for key in grouped if key[0] == arm.reference and key[2] == 1.0]
    return grouped[min(candidates, key=lambda key: key[1] != WHOLE)] if candidates else []


def _group(
    sweep: Sweep,
    arms: Mapping[str, Arm],
    key: tuple[str, str, float],
    grouped: Mapping[tuple[str, str, float], list[Run]],
) -> Group:
    arm, policy, keep = arms[key[0]], key[1], key[2]
    runs, full = grouped[key], _full_runs(arm, grouped)
    one_off = one_off_seconds(sweep, arm, policy, keep)
    mine = sum(one_off.values())

    def total(other: Arm) -> float:
        """One-off seconds of `other` on all data."""
        return sum(one_off_seconds(sweep, other, WHOLE, 1.0).values())

    def against(other: Arm) -> Stat | None:
        fixed = total(other)
        others = _full_runs(other, grouped)
        return _paired(runs, others, lambda a, b: (b.train_seconds + fixed) / (a.train_seconds + mine))

    seen = mean(_seen(run, arm) for run in runs)
    return Group(
        arm=arm.name,
        settings=arm,
        policy=policy,
        keep=keep,
        runs=tuple(runs),
        kept_share=mean(_seen(run, arm) / (run.epochs * run.samples_total) for run in runs),
        epochs=runs[0].epochs,
        ideal=mean(run.samples_kept * run.epochs for run in full) / seen if full else None,
        top1=stat(run.top1 for run in runs),
        val_samples=val_samples(sweep, runs),
        best_top1=stat(run.best_top1 for run in runs),
        train_seconds=stat_of([run.train_seconds for run in runs]),
        train_seconds_median=median(run.train_seconds for run in runs),
        epoch_seconds=quartiles([seconds for run in runs for seconds in run.epoch_seconds]),
        one_off=one_off,
        speedup_training=_paired(runs, full, lambda a, b: b.train_seconds / a.train_seconds),
        speedup_total=against(arms[arm.reference]),
        speedup_vs_plain=against(ARMS["plain"]),
        speedup_vs_kd=against(ARMS["kd"]),
        data_wait_share=stat(run.data_wait_share for run in runs),
        images_per_second=stat(run.images_per_second for run in runs),
        read_amplification=stat(run.read_amplification for run in runs),
        phases={name: mean(run.phases.get(name, 0.0) for run in runs) for run in runs for name in run.phases},
        break_even_arm=_break_even(runs, full, one_off, total(arms[arm.reference]), keep),
        break_even_plain=_break_even(runs, _full_runs(ARMS["plain"], grouped), one_off, total(ARMS["plain"]), keep),
    )


def val_samples(sweep: Sweep, runs: Sequence[Run]) -> int | None:
    """Images that accuracies rest on: what the runs say, or else the sweep; None if neither does."""
    known = [int(run.val_samples) for run in runs if run.val_samples]
    stored = (sweep.facts.get("store") or {}).get("val")
    return min(known) if known else stored if isinstance(stored, int) and stored > 0 else None


def _seen(run: Run, arm: Arm) -> float:
    """Samples a run went through; a dynamic policy's are counted, the others' follow from the selection."""
    counted = run.samples_seen if arm.dynamic else None
    return run.samples_kept * run.epochs if counted is None else counted


def one_off_seconds(sweep: Sweep, arm: Arm, policy: str, keep: float) -> dict[str, float]:
    """What a run of this kind needs once, by name.

    Scores are needed by policies that rank by one (an unknown policy is taken to) and by logit reshaping; the teacher
    by whoever distils or scores; cached soft labels by whoever reads them, those of the kept samples alone; a cost of
    another name (compact, ...) by every pruned run.
    """
    pruned = policy != WHOLE and keep < 1
    ranks = pruned and (policy not in POLICIES or POLICIES[policy].needs_score)
    scores = ranks or (sweep.reshaping and arm.distils)
    shares = {
        "score": float(scores),
        "select": float(pruned),
        "teacher": float(arm.distils or scores),
        "labels": (keep if pruned else 1.0) * (arm.teacher == "cached"),
    }
    needed = {name: shares.get(name, float(pruned)) * seconds for name, seconds in sweep.costs.items()}
    return {name: seconds for name, seconds in needed.items() if shares.get(name, pruned)}


def _paired(runs: Sequence[Run], others: Sequence[Run], ratio: Callable[[Run, Run], float]) -> Stat | None:
    """`ratio` over the seeds both have: runs of one seed took turns, so what disturbed one disturbed the other."""
    by_seed = {run.seed: run for run in others}
    return stat(ratio(run, by_seed[run.seed]) for run in runs if run.seed in by_seed)


def _break_even(
    runs: Sequence[Run], full: Sequence[Run], one_off: Mapping[str, float], other_fixed: float, keep: float
) -> float | None:
    """Runs, or a part of one, until the one-off costs beyond the baseline's own are saved.

    A selection is paid for in every run.
    """
    each = one_off.get("select", 0.0)
    once = sum(one_off.values()) - each - other_fixed
    if not full or keep == 1 or once <= 0:
        return None
    saved = mean(run.train_seconds for run in full) - mean(run.train_seconds for run in runs) - each
    return once / saved if saved > 0 else math.inf
