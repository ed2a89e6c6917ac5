"""Progress lines where there is no terminal, and speeds."""

import pytest

from prunekd.cli._shared import Speed, progress_bar


def test_a_line_is_printed_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(20, "work") as update:
        for done in range(21):
            update(done, "things")
    assert capsys.readouterr().err.splitlines() == [f"work: {done}/20 things" for done in range(0, 21, 2)]


def test_a_total_can_come_later_and_another_bar_begins_at_its_start(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(None, "work") as update:
        assert capsys.readouterr().err == ""
        for name in ("train", "val"):
            for done in range(4):
                update(done, "", 3, f"check {name}")
    expected = [f"check {name}: {done}/3 " for name in ("train", "val") for done in range(4)]
    assert capsys.readouterr().err.splitlines() == expected


def test_what_was_done_before_does_not_count_for_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 120.0, 120.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    speed = Speed()
    assert speed.per_second(50) == 0
    assert speed.per_second(90) == 2
    assert speed.seconds == 20
