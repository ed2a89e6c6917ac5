"""What the two papers claim, and what this sweep says of it.

P1: "Distilling the Knowledge in Data Pruning" (ICML 2025); P2: "Medium-Difficulty Samples Constitute Smoothed Decision
Boundary for Knowledge Distillation on Pruned Datasets" (ICLR 2025). A difference in accuracy counts only beyond its
noise: the standard deviation over seeds and the error of the validation split's size. One seed decides nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from prunekd.reporting.aggregate import Summary
from prunekd.reporting.group import Group
from prunekd.reporting.stats import UNDECIDED, Difference
from prunekd.reporting.wording import plural

HELD, FAILED, UNTESTED = "held", "did not hold", "not tested"
KD = ("kd", "kd_cached")  # the arms that distil as the papers do
_TIME_TOLERANCE = 1.05  # a time ratio within 5 % of the one claimed counts as reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim, what was measured here with seeds and spread, and whether it held."""

    paper: str
    text: str
    measured: str
    verdict: str


def check_claims(summary: Summary) -> list[Claim]:
    """All claims this report knows, tested or not."""
    return [
        _time_and_accuracy(summary, 0.5, 0.5, "plain", "ImageNet, keep 0.5: half the training time, and more accurate "
                           "than training on all data without distillation (+0.4 points)"),
        _time_and_accuracy(summary, 0.7, 0.7, "kd", "ImageNet, keep 0.7: 30 % less training time, and at least as "
                           "accurate as distillation on all data"),
        _random_is_enough(summary),
        _distilling_helps(summary),
    ]  # fmt: skip


def _time_and_accuracy(summary: Summary, keep: float, share: float, baseline: str, text: str) -> Claim:
    """P2's headline: medium samples with KD at `keep` take `share` of the time and lose nothing to `baseline`."""

    def claim(measured: str, verdict: str) -> Claim:
        return Claim(paper="P2", text=text, measured=measured, verdict=verdict)

    group = _distilled(summary, keep, "medium")
    if group is None:
        return claim(f"no run distils on medium samples at keep {keep:g}", UNTESTED)
    if group.speedup_training is None:
        return claim("the full-data run of the same seeds is missing", UNTESTED)
    time = 1 / group.speedup_training.mean
    fast = time <= share * _TIME_TOLERANCE
    full = summary.find(baseline, 1.0) or (summary.find("kd_cached", 1.0) if baseline == "kd" else None)
    seeds = plural(len(group.runs), "seed")
    told = f"{time:.2f}x the training time of KD on all data ({seeds})"
    if group.speedup_total is not None and group.one_off:
        told += f", {1 / group.speedup_total.mean:.2f}x with one-off costs"
    over = None if full is None else group.top1_over(full)
    if over is None:
        return claim(f"{told}; accuracy was not measured for both", UNDECIDED if fast else FAILED)
    told += f"; {_signed(over)} against {'plain' if baseline == 'plain' else 'KD'} on all data"
    told += "" if summary.sweep.reshaping else "; without P2's logit reshaping"
    if not fast:
        return claim(told, FAILED)
    return claim(told, _judge(over))


def _random_is_enough(summary: Summary) -> Claim:
    """P1: with KD, random pruning is comparable or superior to clever policies at every ratio."""
    found = []
    for keep in summary.keeps:
        random = _distilled(summary, keep, "random")
        others = [g for g in summary.groups if g.keep == keep and keep < 1 and _is_clever(g)]
        if random is not None and random.top1 is not None and others:
            best = max(others, key=lambda g: g.top1.mean if g.top1 else 0.0)
            if (over := random.top1_over(best)) is not None:
                found.append((f"keep {keep:g}: {{}} against {best.policy}", over))
    text = "with distillation, random pruning is as good as or better than clever policies at every ratio"
    return _over_keeps(summary, text, found, "no ratio has distilled runs on random samples and on another policy's")


def _distilling_helps(summary: Summary) -> Claim:
    """P1: on pruned data a teacher trained on everything improves on labels alone, at every ratio."""
    found = []
    for keep in (keep for keep in summary.keeps if keep < 1):
        distilled, plain = _distilled(summary, keep, "random"), summary.find("plain", keep, "random")
        if distilled and plain and (over := distilled.top1_over(plain)) is not None:
            found.append((f"keep {keep:g}: {{}}", over))
    text = "on pruned data, distillation beats training on labels alone at every ratio"
    return _over_keeps(summary, text, found, "no ratio has random samples both with and without distillation")


def _over_keeps(summary: Summary, text: str, found: list[tuple[str, Difference]], untested: str) -> Claim:
    """A claim of P1 about every ratio holds if it holds at each, and fails if it fails at one."""
    if not found:
        measured = "no accuracy was measured" if summary.sweep.extrapolated else untested
        return Claim(paper="P1", text=text, measured=measured, verdict=UNTESTED)
    verdicts = [_judge(over) for _, over in found]
    verdict = next((v for v in (FAILED, UNDECIDED) if v in verdicts), HELD)
    measured = "; ".join(words.format(_signed(over)) for words, over in found)
    return Claim(paper="P1", text=text, measured=measured, verdict=verdict)


def _judge(over: Difference) -> str:
    if not over.decided:
        return UNDECIDED
    return HELD if over.points > 0 else FAILED


def _signed(over: Difference) -> str:
    return f"{over.points:+.1f} points ({over.told_noise})"


def _distilled(summary: Summary, keep: float, policy: str) -> Group | None:
    """A group that distils as kd does on the samples of a policy."""
    return _first(summary, lambda g: g.keep == keep < 1 and g.policy == policy and g.arm in (*KD, policy))


def _is_clever(group: Group) -> bool:
    return group.settings.reference in KD and group.policy not in ("all", "random")


def _first(summary: Summary, wanted: Callable[[Group], bool]) -> Group | None:
    return next((group for group in summary.groups if wanted(group)), None)
