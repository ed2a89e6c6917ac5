"""How far a sweep is: state of each run, images per second, time that is left."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prunekd.sweep.grid import PlannedRun


@dataclass(slots=True, kw_only=True)
class RunState:
    """One run. share is the part of it that is done; accuracies are in [0, 1], None until known.

    samples and epochs are those it trains for in all; seconds of wall-clock went into new_share, the part that this
    process did.
    """

    run: PlannedRun
    samples: int
    epochs: int
    share: float = 0.0
    epoch: int = 0
    top1: float | None = None
    val_top1: float | None = None
    images_per_second: float | None = None
    data_wait_share: float | None = None
    seconds: float = 0.0
    new_share: float = 0.0
    begun: bool = False

    @property
    def finished(self) -> bool:
        """True when nothing is left to do."""
        return self.share >= 1

    def numbers(self) -> dict[str, float]:
        """What is known, for a log."""
        values = {name: getattr(self, name) for name in ("share", *_SHOWN)}
        return {name: value for name, value in values.items() if value is not None}


_SHOWN = ("top1", "val_top1", "images_per_second", "data_wait_share")


class SweepProgress:
    """State of a sweep's runs, fed with what their trainers report; runs take turns, so time belongs to the reporter.

    Args:
        runs: all of the sweep, with the samples and epochs each trains for in all.
        finished: names of runs that an earlier process finished.
        clock: seconds, rising.
    """

    def __init__(
        self,
        runs: Iterable[tuple[PlannedRun, int, int]],
        finished: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.states = {run.name: RunState(run=run, samples=samples, epochs=epochs) for run, samples, epochs in runs}
        for name in finished:
            self.states[name].share = 1.0
        self.current: str | None = None
        self._clock = clock
        self._last = clock()

    def update(self, run: PlannedRun, values: Mapping[str, Any]) -> RunState:
        """Take in what the trainer of `run` told (kind train or epoch) and return the run's state."""
        now = self._clock()
        state = self.states[run.name]
        # a dynamic policy takes fewer steps than were foreseen, and is done when its epochs are
        epochs = (values["epoch"] + (values["kind"] == "epoch")) / state.epochs
        share = 1.0 if values["finished"] else min(1.0, max(values["step"] / values["total_steps"], epochs))
        # a run that another process began tells only with its first report how much of it was done
        state.new_share += max(0.0, share - state.share) if state.begun else values["samples"] / state.samples
        state.begun = True
        state.seconds += now - self._last
        self._last, self.current = now, run.name
        state.share, state.epoch, state.top1 = share, int(values["epoch"]) + 1, values["top1"]
        if values["kind"] == "epoch":
            busy = values["seconds"]
            values = {
                **values,
                "images_per_second": values["samples"] / busy if busy else None,
                "data_wait_share": values["data_wait_seconds"] / busy if busy else None,
            }
        for name in _SHOWN[1:]:
            if values.get(name) is not None:
                setattr(state, name, values[name])
        return state

    @property
    def finished(self) -> int:
        """Runs that are done."""
        return sum(state.finished for state in self.states.values())

    @property
    def share(self) -> float:
        """The part of all samples that have been trained on."""
        every = self.states.values()
        return sum(state.share * state.samples for state in every) / max(1, sum(state.samples for state in every))

    @property
    def seconds_left(self) -> float | None:
        """Time to the end at the pace of each run, of its arm, or of all; None before the first report."""
        done = [state for state in self.states.values() if state.new_share > 0]
        if not done:
            return None
        overall = _pace(done)
        by_arm = {
            arm: _pace([state for state in done if state.run.arm == arm]) for arm in {state.run.arm for state in done}
        }
        left = 0.0
        for state in self.states.values():
            pace = _pace([state]) if state.new_share > 0 else by_arm.get(state.run.arm, overall)
            left += (1 - state.share) * state.samples * pace
        return left

    def numbers(self) -> dict[str, float]:
        """Of the whole sweep, for a log."""
        values = {"share": self.share, "runs_finished": float(self.finished)}
        left = self.seconds_left
        return values if left is None else {**values, "seconds_left": left}


def _pace(states: Iterable[RunState]) -> float:
    """Seconds of wall-clock a sample takes."""
    found = list(states)
    return sum(state.seconds for state in found) / sum(state.new_share * state.samples for state in found)
