"""Learning rate and resolution as pure functions of the position in the run."""

import math

from prunekd.training.settings import ProgressiveSettings, ScheduleSettings


def learning_rate(settings: ScheduleSettings, peak: float, position: float, length: float) -> float:
    """Learning rate at `position` (0 is the first optimizer step) of a run of `length` steps.

    Warm-up rises linearly to `peak`, which its last step reaches; cosine (Loshchilov & Hutter 2017, without restarts)
    and linear then fall to floor * peak at the end of the run; step multiplies by gamma at each milestone.
    """
    warmup = round(settings.warmup * length)
    if position < warmup:
        return peak * (position + 1) / warmup
    done = (position - warmup) / max(1, length - warmup)
    if settings.name == "cosine":
        return peak * (settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * done)))
    if settings.name == "linear":
        return peak * (settings.floor + (1 - settings.floor) * (1 - done))
    if settings.name == "step":
        passed = sum(position >= round(milestone * length) for milestone in settings.milestones)
        return peak * settings.gamma**passed
    return peak


def resolution(settings: ProgressiveSettings, full: int, done: float) -> int:
    """Side in pixels of the training views when the fraction `done` of the run lies behind, at most `full`."""
    first, last = settings.ramp
    if not settings.start or done >= last:
        return full
    share = max(0.0, (done - first) / (last - first))
    size = settings.start + share * (full - settings.start)
    return min(full, max(settings.start, round(size / settings.multiple) * settings.multiple))
