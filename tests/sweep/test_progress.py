"""The live view: shares, the time that is left, and what is drawn of them."""

import io
from typing import Any

import pytest
from rich.console import Console

from prunekd.cli._dashboard import dashboard, duration, render
from prunekd.sweep.grid import PlannedRun
from prunekd.sweep.progress import SweepProgress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def planned(arm: str, keep: float, seed: int = 0) -> PlannedRun:
    return PlannedRun(name=f"{arm}-{keep}-{seed}", arm=arm, policy="random", keep=keep, seed=seed, epochs=4)


def epoch(number: int, samples: int, steps: int = 4, **more: Any) -> dict[str, Any]:
    """The report after one epoch, the first being 0; a step an epoch."""
    finished = more.pop("finished", number + 1 == 4)
    values = {"kind": "epoch", "step": number + 1, "total_steps": steps, "finished": finished, "epoch": number}
    return values | {"top1": 0.5, "samples": samples, "seconds": 2.0, "data_wait_seconds": 0.1} | more


def test_time_left_is_each_run_s_own_pace_then_its_arm_s_then_all_runs() -> None:
    clock = Clock()
    full, half, other, second = planned("kd", 1.0), planned("kd", 0.5), planned("plain", 1.0), planned("kd", 1.0, 1)
    progress = SweepProgress([(full, 4000, 4), (half, 2000, 4), (other, 4000, 4), (second, 4000, 4)], clock=clock)
    assert progress.seconds_left is None
    clock.now += 10
    progress.update(full, epoch(0, 1000))  # 10 ms a sample
    clock.now += 10
    progress.update(half, epoch(0, 500))  # 20 ms a sample
    arm = 20 / 1500
    expected = 3000 * 0.010 + 1500 * 0.020 + 4000 * arm + 4000 * arm
    assert progress.seconds_left == pytest.approx(expected)
    clock.now += 4
    progress.update(other, epoch(0, 1000, val_top1=0.25))  # 4 ms a sample
    assert progress.seconds_left == pytest.approx(3000 * 0.010 + 1500 * 0.020 + 3000 * 0.004 + 4000 * arm)
    assert progress.share == pytest.approx((1000 + 500 + 1000) / 14000)
    assert progress.states[other.name].numbers() == {
        "share": 0.25, "top1": 0.5, "val_top1": 0.25, "images_per_second": 500.0, "data_wait_share": 0.05,
    }  # fmt: skip
    assert progress.numbers()["seconds_left"] == progress.seconds_left


def test_a_resumed_sweep_counts_what_was_done_but_times_only_what_it_does() -> None:
    clock = Clock()
    done, begun = planned("plain", 1.0), planned("kd", 1.0)
    progress = SweepProgress([(done, 4000, 4), (begun, 4000, 4)], finished=[done.name], clock=clock)
    assert progress.finished == 1
    assert progress.share == 0.5
    clock.now += 30
    progress.update(begun, epoch(2, 1000))  # its third epoch; two were another process's
    assert progress.share == pytest.approx((4000 + 3000) / 8000)
    assert progress.seconds_left == pytest.approx(30)


def test_a_run_that_leaves_out_samples_is_done_with_its_epochs() -> None:
    run = planned("infobatch", 0.5)
    progress = SweepProgress([(run, 4000, 4)], clock=Clock())
    for number in range(4):
        progress.update(run, epoch(number, 700, steps=16))  # so many steps were foreseen
        assert progress.share == pytest.approx((number + 1) / 4)
    assert progress.finished == 1


def test_the_table_keeps_to_the_terminal_and_to_the_seed_at_hand() -> None:
    runs = [planned(arm, keep, seed) for seed in (0, 1) for keep in (1.0, 0.5) for arm in ("plain", "kd", "rs2", "kd2")]
    progress = SweepProgress([(run, 1000, 4) for run in runs], finished=[runs[0].name], clock=Clock())
    progress.update(runs[1], epoch(1, 250))

    def shown(height: int) -> list[str]:
        console = Console(file=io.StringIO(), width=100, height=height)
        console.print(render(progress, "sweep", console))
        return str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]

    lines = shown(40)
    assert sum("random" in line for line in lines) == 8  # one seed's
    (row,) = [line for line in lines if line.startswith(">")]
    assert all(word in row for word in ("KD, random", "2/4", "50.0%", "125", "5.0%"))
    assert "1 of 16 runs finished" in " ".join(lines)
    assert all(len(line) <= 100 for line in lines)
    small = shown(11)
    assert len(small) <= 11
    assert not any("Plain, random      1 " in line for line in small)  # the finished run gives way


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [planned("kd", 1.0), planned("plain", 1.0)]
    progress = SweepProgress([(run, 1000, 100) for run in runs], clock=Clock())
    with dashboard(progress, "sweep") as show:
        for number in range(100):
            for run in runs:
                show(progress.update(run, epoch(number, 10, steps=100, finished=number == 99, val_top1=0.5)))
    lines = capsys.readouterr().err.splitlines()
    assert 20 <= len(lines) <= 23
    assert lines[-1].startswith("sweep: 100%, 2 of 2 runs finished, about 0 s left; plain-1.0-0 epoch 100/100, val 50")


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (95, "2 min"), (12_000, "3 h 20 min")])
def test_durations_are_said_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
