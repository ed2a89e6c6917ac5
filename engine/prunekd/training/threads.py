"""How many OpenMP threads a training step uses on a CPU that other processes use, too.

A parallel region ends when its slowest thread does. Where another process holds one core, that thread waits for a time
slice in each of the hundreds of regions of a step, and many threads become far slower than one. The trainer therefore
measures: at the beginning, when steps become slow, and now and then while it uses fewer threads than it might.

A sum depends in its last bits on the number of threads that share it. Set OMP_NUM_THREADS for runs that must be
bit-identical; the number is then left alone.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import mean

import torch

logger = logging.getLogger(__name__)

WARM_UP = 2  # first steps, which allocate and compile
ROUNDS = 3  # steps timed with each number of threads
WINDOW = 4  # steps whose mean tells that the rate has fallen
SLOWER = 1.5  # by so much
GAIN = 1.25  # fewer threads must be so much faster: more are as a rule better once the machine is quiet again
HOPELESS = 3.0  # times as long in all as the fastest: not timed to the end
SHARE = 20  # a measurement may take one part in so many of the time
LONGEST = 300.0  # seconds until more threads are tried again, at most

_told: set[int] = set()  # numbers of threads that this process has told about


class ThreadChooser:
    """Chooses between numbers of threads by the seconds of steps; knows neither threads nor clocks.

    Args:
        candidates: numbers of threads, the largest first.

    Attributes:
        threads: for the next step.
    """

    def __init__(self, candidates: Sequence[int]) -> None:
        self._candidates = tuple(candidates)
        self.threads = self._candidates[-1]  # until it is known what more of them cost
        self._warm_up = WARM_UP
        self._probe: list[int] = []  # numbers of threads still to be timed
        self._times: dict[int, list[float]] = {}
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._expected = 0.0  # seconds of a step with the number that was chosen
        self._since = 0.0  # seconds of steps since it was
        self._cost = 0.0  # of the last measurement
        self._pause = 0.0  # seconds until more threads are tried again
        self._chosen = 0

    def record(self, seconds: float) -> str | None:
        """Note the seconds of a step with `threads`; returns what was decided, in words, if something was."""
        if self._warm_up:
            self._warm_up -= 1
            if not self._warm_up:
                self._begin()
            return None
        if self._probe:
            return self._note(seconds)
        self._since += seconds
        self._recent.append(seconds)
        fallen = len(self._recent) == WINDOW and mean(self._recent) > SLOWER * self._expected
        fewer = self.threads < self._candidates[0]
        if (fallen and self._since > SHARE * self._cost) or (fewer and self._since > self._pause):
            self._begin()
        elif fallen and mean(self._recent) > SLOWER**3 * self._expected:
            self._begin()  # a collapse: waiting costs more than measuring
        return None

    def _begin(self) -> None:
        self._probe = list(self._candidates) * ROUNDS
        self._times = {count: [] for count in self._candidates}
        self.threads = self._probe[0]

    def _note(self, seconds: float) -> str | None:
        self._times[self.threads].append(seconds)
        fastest = min(mean(times) for times in self._times.values() if times)
        self._probe = [count for count in self._probe[1:] if sum(self._times[count]) < HOPELESS * ROUNDS * fastest]
        if not self._probe:
            return self._decide()
        self.threads = self._probe[0]
        return None

    def _decide(self) -> str | None:
        found = {count: mean(times) for count, times in self._times.items()}
        best = min(found, key=lambda count: found[count])
        top = self._candidates[0]
        if found[top] <= GAIN * found[best]:
            best = top
        self._cost = sum(sum(times) - len(times) * found[best] for times in self._times.values())
        self._pause = min(LONGEST, 2 * self._pause if best == self._chosen else SHARE * self._cost)
        self._expected, self._since = found[best], 0.0
        self._recent.clear()
        self.threads = best
        if best == self._chosen:
            return None
        self._chosen = best
        others = ", ".join(f"{1e3 * found[count]:.0f} ms with {count}" for count in self._candidates if count != best)
        reason = "" if best == top else "; other processes seem to use this machine"
        return f"OpenMP threads: {best}, {1e3 * found[best]:.0f} ms a step against {others}{reason}"


class StepThreads:
    """The OpenMP threads of a run's steps, chosen as it goes on a CPU, left alone on a GPU and where OMP_NUM_THREADS
    is set.

    Args:
        device: of the training.
        clock: in seconds.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        most = torch.get_num_threads()
        self._chooser = None
        self._decided = False
        if device.type == "cpu" and most > 1 and "OMP_NUM_THREADS" not in os.environ:
            self._chooser = ThreadChooser(sorted({most, most - 1, most // 2, max(1, most // 4)}, reverse=True))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run a step with the number of threads whose turn it is, and learn from how long it takes."""
        if self._chooser is None:
            yield
            return
        started = self._clock()
        with self.chosen():
            yield
        if decision := self._chooser.record(self._clock() - started):
            # the runs of a sweep begin with the same decision, which need not be told of each
            known = not self._decided and self._chooser.threads in _told
            logger.log(logging.DEBUG if known else logging.INFO, decision)
            self._decided = True
            _told.add(self._chooser.threads)

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Use the number of threads that steps use now, for other work of the run."""
        before = torch.get_num_threads()
        if self._chooser is None or self._chooser.threads == before:
            yield
            return
        torch.set_num_threads(self._chooser.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
