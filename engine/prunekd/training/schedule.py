"""Learning rate as a pure function of the position in the run."""

import math

from prunekd.training.recipe import ScheduleSettings


def learning_rate(settings: ScheduleSettings, peak: float, step: int, total_steps: int) -> float:
    """Learning rate of optimizer step `step` (from 0) of `total_steps`.

    Warm-up rises linearly to `peak`, which its last step reaches; cosine then falls to floor * peak at the end of
    the run (Loshchilov & Hutter 2017, without restarts); step multiplies by gamma at each milestone.
    """
    warmup_steps = round(settings.warmup * total_steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if settings.name == "cosine":
        position = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return peak * (settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * position)))
    if settings.name == "step":
        passed = sum(step >= round(milestone * total_steps) for milestone in settings.milestones)
        return peak * settings.gamma**passed
    return peak
