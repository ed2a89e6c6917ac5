"""The report's first sentences: what was found, said no more surely than the data allow."""

from collections.abc import Sequence

from prunekd.reporting.aggregate import Summary
from prunekd.reporting.group import Group
from prunekd.reporting.results import overlap_note, timing_note
from prunekd.reporting.stats import UNDECIDED
from prunekd.reporting.wording import arm_title, number, plural, points, ratio

_SHOWCASE_KEEP = 0.5  # the ratio both papers quote


def headline(summary: Summary) -> list[str]:
    """One or more plain sentences; the first is the title of the page.

    They compare the pruned runs nearest keep 0.5 (kd before other arms, plain last, random before other policies, so
    that the choice does not depend on how well they did) with the same arm on all data, and with plain training on all.
    """
    shown = _showcase(summary.groups)
    if shown is None:
        sentences = [_without_pruning(summary)]
    else:
        sentences = [*_against_full(summary, shown), *_against_control(summary, shown)]
    return sentences + _caveats(summary)


def _showcase(groups: Sequence[Group]) -> Group | None:
    pruned = [group for group in groups if group.keep < 1 and not group.settings.fewer_epochs]

    def preference(group: Group) -> tuple[int, float, bool]:
        order = ("kd", "random", "kd_cached")
        place = order.index(group.arm) if group.arm in order else len(order) + (not group.settings.distils)
        return place, abs(group.keep - _SHOWCASE_KEEP), group.policy != "random"

    return min(pruned, key=preference) if pruned else None


def _name(group: Group) -> str:
    at = f"{arm_title(group.arm)} at keep {group.keep:g}"
    return at if group.policy in ("random", "all") else f"{at} ({group.policy})"


def _without_pruning(summary: Summary) -> str:
    if not summary.groups:
        return "No run of this sweep has finished yet."
    best = [f"{arm_title(g.arm)}{_reached(g)} in {number(g.train_seconds.mean)} s" for g in summary.groups]
    return f"No pruned run has finished yet; so far: {'; '.join(best)}."


def _reached(group: Group) -> str:
    return "" if group.top1 is None else f" reached {100 * group.top1.mean:.1f} %"


def _against_full(summary: Summary, shown: Group) -> list[str]:
    full = summary.find(shown.settings.reference, 1.0)
    if full is None or shown.speedup_training is None:
        return [_against_plain_only(summary, shown)]
    took = "would take" if shown.extrapolated else "took"
    times = f"{_name(shown)} {took} {ratio(1 / shown.speedup_training.mean)} the time of keep 1"
    seeds = plural(shown.speedup_training.n, "seed") + (", extrapolated" if shown.extrapolated else "")
    found = [f"{times}{_lost(shown, full)} ({seeds})."]
    honest = shown.speedup_vs_plain
    if shown.arm != "plain" and honest is not None:
        costs = "; one-off costs are counted in full" if shown.one_off else ""
        found.append(
            f"Against plain training on all data it {'would be' if shown.extrapolated else 'was'} "
            f"{_faster(honest.mean)}{_lost(shown, summary.find('plain', 1.0))}{costs}."
        )
    return found


def _against_plain_only(summary: Summary, shown: Group) -> str:
    start = f"{_name(shown)} took {number(shown.train_seconds.mean)} s of training"
    end = f"{_name(shown).split(' at ')[0]} on all data did not finish for the same seeds, so no speed-up can be given"
    if shown.speedup_vs_plain is None:
        reached = f" and reached {100 * shown.top1.mean:.1f} %" if shown.top1 else ""
        return f"{start}{reached} ({plural(len(shown.runs), 'seed')}); {end}."
    lost = _lost(shown, summary.find("plain", 1.0))
    seeds = plural(shown.speedup_vs_plain.n, "seed")
    faster = _faster(shown.speedup_vs_plain.mean)
    return f"{_name(shown)} was {faster} as plain training on all data{lost} ({seeds}); {end}."


def _faster(factor: float) -> str:
    """`1.8x as fast`, `0.9x as fast`: never "faster" for something slower."""
    return f"{ratio(factor)} as fast"


def _lost(shown: Group, before: Group | None) -> str:
    over = None if before is None else shown.top1_over(before)
    if over is None:
        return "" if shown.extrapolated else "; accuracy was not measured for both"
    if over.decided:
        return f" and {'gained' if over.points > 0 else 'lost'} {points(abs(over.points))}"
    return f"; accuracy: {UNDECIDED} ({over.points:+.1f} points, {over.told_noise})"


def _against_control(summary: Summary, shown: Group) -> list[str]:
    for control in summary.equal_time:
        if (control.arm, control.keep, control.policy) == (shown.arm, shown.keep, shown.policy):
            start = "Pruning against distilling on all data for the same time"
            if control.verdict == UNDECIDED:
                noise = "one seed" if control.noise is None else f"noise {control.noise:.1f}"
                return [f"{start}: {UNDECIDED} ({control.difference:+.1f} points, {noise})."]
            return [f"{start}: {control.verdict}, by {points(abs(control.difference))}."]
    return []


def _caveats(summary: Summary) -> list[str]:
    found = []
    sweep = summary.sweep
    if note := timing_note(sweep):
        found.append(note)
    if note := overlap_note(sweep):
        found.append(note)
    if sweep.missing:
        found.append(
            f"{len(sweep.missing)} of {plural(sweep.planned, 'run')} {'is' if len(sweep.missing) == 1 else 'are'} "
            "missing (listed below): what follows may change."
        )
    if summary.groups and not sweep.extrapolated and all(len(group.runs) == 1 for group in summary.groups):
        found.append("Every point is a single seed: how far seeds differ is unknown.")
    return found
