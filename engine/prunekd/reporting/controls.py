"""Two checks of a sweep: is an epoch proportional to what is kept, and does pruning beat the same time without it?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from prunekd.reporting.group import Group
from prunekd.reporting.stats import UNDECIDED

BETTER, WORSE = "better", "worse"


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
    """KD on pruned data against KD on all data for r x epochs.

    difference is in points, positive where pruning is ahead; spread is its standard deviation over seeds, noise that
    with the error of the validation split's size (None: one seed). verdict is one of BETTER, WORSE, UNDECIDED, of
    pruning.
    """

    arm: str
    keep: float
    policy: str
    difference: float
    spread: float | None
    noise: float | None
    verdict: str
    time_ratio: float


def fit_epochs(arm: str, groups: Sequence[Group]) -> Fit | None:
    """Fit epoch seconds = slope * r + constant to the runs' median epochs; None with fewer than two ratios.

    r is the share really kept. Errors count relative to the epoch, so that short epochs weigh as much as long ones.
    """
    points = [(group.kept_share, median(run.epoch_seconds)) for group in groups for run in group.runs]
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


def compare_equal_time(groups: Sequence[Group]) -> tuple[EqualTime, ...]:
    """Every pruned group that distils as `kd` does, against the control at the same keep."""
    controls = {group.keep: group for group in groups if group.arm == "equal_time"}
    found = []
    for group in groups:
        control = controls.get(group.keep)
        if control is None or group is control or group.settings.reference != "kd":
            continue
        over = group.top1_over(control)
        if over is None:
            continue
        found.append(
            EqualTime(
                arm=group.arm,
                keep=group.keep,
                policy=group.policy,
                difference=over.points,
                spread=over.seeds,
                noise=over.noise,
                verdict=UNDECIDED if not over.decided else BETTER if over.points > 0 else WORSE,
                time_ratio=group.train_seconds.mean / control.train_seconds.mean,
            )
        )
    return tuple(found)
