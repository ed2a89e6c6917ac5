"""How many threads steps use, on a machine that is made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunekd.training import threads as threads_module
from prunekd.training.threads import GAIN, LONGEST, StepThreads, ThreadChooser

QUIET = {2: 0.09, 1: 0.17}  # seconds of a step by number of threads
BUSY = {2: 1.6, 1: 0.21}


def simulate(chooser: ThreadChooser, seconds_of: Callable[[float], dict[int, float]], until: float) -> list[int]:
    """Run steps for `until` simulated seconds on a machine that is as `seconds_of` says at a time; threads of each."""
    now, used = 0.0, []
    while now < until:
        used.append(chooser.threads)
        seconds = seconds_of(now)[chooser.threads]
        chooser.record(seconds)
        now += seconds
    return used


def test_a_quiet_machine_uses_all_threads_and_measures_once() -> None:
    used = simulate(ThreadChooser([2, 1]), lambda now: QUIET, 600)
    assert used.count(1) == 5  # two to warm up, three timed
    assert used[-1] == 2


@pytest.mark.parametrize(
    "neighbour", [lambda now: BUSY, lambda now: BUSY if now > 100 else QUIET], ids=["always", "late"]
)
def test_a_busy_neighbour_costs_no_more_than_the_threads_it_takes(
    neighbour: Callable[[float], dict[int, float]],
) -> None:
    chooser = ThreadChooser([2, 1])
    used = simulate(chooser, neighbour, 1000)
    assert chooser.threads == 1 or used[-8:].count(1) >= 4
    best = 900 / BUSY[1] + (0 if neighbour(0) == BUSY else 100 / QUIET[2])
    assert len(used) > 0.85 * best


def test_all_threads_are_used_again_when_the_neighbour_has_gone() -> None:
    chooser = ThreadChooser([2, 1])
    used = simulate(chooser, lambda now: BUSY if now < 200 else QUIET, 200 + 2 * LONGEST)
    assert used[-1] == 2
    assert chooser.threads == 2


def test_larger_images_are_no_reason_to_use_fewer_threads() -> None:
    chooser = ThreadChooser([4, 3, 2, 1])
    used = simulate(chooser, lambda now: {n: (1.0 if now < 50 else 5.0) / n for n in (4, 3, 2, 1)}, 400)
    assert used[-1] == 4


@given(st.lists(st.floats(0.01, 5.0), min_size=2, max_size=4), st.integers(7, 60))
def test_what_is_chosen_is_never_far_from_the_best(seconds: list[float], steps: int) -> None:
    counts = list(range(len(seconds), 0, -1))
    table = dict(zip(counts, seconds, strict=True))
    chooser = ThreadChooser(counts)
    while chooser._chosen == 0:
        chooser.record(table[chooser.threads])
    assert table[chooser._chosen] <= GAIN * min(seconds)


def test_threads_are_torchs_during_a_step_and_the_decision_is_logged(
    monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads_module, "_told", set())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        now = 0.0
        threads = StepThreads(torch.device("cpu"), clock=lambda: now)
        seen = []
        for _ in range(12):
            with threads.step():
                seen.append(torch.get_num_threads())
                now += BUSY[torch.get_num_threads()]
            assert torch.get_num_threads() == 2
        with threads.chosen():
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert seen[:4] == [1, 1, 2, 1]
    assert seen.count(2) == 2  # then it is hopeless
    assert seen[-4:] == [1, 1, 1, 1]
    assert told == ["OpenMP threads: 1, 210 ms a step against 1600 ms with 2; other processes seem to use this machine"]


def test_the_runs_of_a_sweep_tell_the_same_decision_once(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads_module, "_told", set())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        clock = [0.0]
        for machine in (BUSY, BUSY, QUIET):
            threads = StepThreads(torch.device("cpu"), clock=lambda: clock[0])
            for _ in range(12):
                with threads.step():
                    clock[0] += machine[torch.get_num_threads()]
    finally:
        torch.set_num_threads(before)
    assert [line.split(",")[0] for line in told] == ["OpenMP threads: 1", "OpenMP threads: 2"]


@pytest.mark.parametrize("why", ["told", "gpu", "one"])
def test_the_number_is_left_alone_where_it_is_given(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why != "told":
        monkeypatch.delenv("OMP_NUM_THREADS")
    before = torch.get_num_threads()
    torch.set_num_threads(1 if why == "one" else 2)
    try:
        threads = StepThreads(torch.device("cuda" if why == "gpu" else "cpu"), clock=lambda: pytest.fail("was timed"))
        for _ in range(20):
            with threads.step():
                assert torch.get_num_threads() == (1 if why == "one" else 2)
    finally:
        torch.set_num_threads(before)
