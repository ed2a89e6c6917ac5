"""The common room: whole files, the ledger, unknown names."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunekd.common.files import read_json, replacing, write_json
from prunekd.common.ledger import Ledger
from prunekd.common.machine import busy_cores, describe_machine
from prunekd.common.registry import unknown


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_json(target, {"a": 1})

    def fail() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert read_json(target) == {"a": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_broken_or_missing_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"y\.json does not exist"):
        read_json(tmp_path / "y.json")


def test_phases_are_exclusive_and_sum_to_the_wall_clock() -> None:
    ledger = Ledger()
    started = time.perf_counter()
    with ledger.phase("other"):
        with ledger.phase("step"):
            time.sleep(0.02)
            with ledger.phase("data_wait"):
                time.sleep(0.03)
            time.sleep(0.01)
        time.sleep(0.01)
    wall = time.perf_counter() - started
    booked = ledger.to_dict()
    assert booked["wall_seconds"] == pytest.approx(wall, rel=0.01)
    assert booked["wall_seconds"] == pytest.approx(sum(booked["seconds"].values()))
    assert booked["seconds"]["data_wait"] >= 0.03
    assert booked["seconds"]["step"] >= 0.03
    assert booked["seconds"]["step"] < wall - booked["seconds"]["data_wait"]
    time.sleep(0.02)
    assert ledger.to_dict()["wall_seconds"] == pytest.approx(booked["wall_seconds"])


def test_a_restored_ledger_goes_on_counting() -> None:
    first = Ledger()
    with first.phase("step"):
        time.sleep(0.01)
    first.count("bytes_read", 5)
    second = Ledger()
    second.restore(first.to_dict())
    second.count("bytes_read", 2)
    assert second.counters["bytes_read"] == 7
    assert second.get("step") >= 0.01


def test_the_ledger_books_a_phase_that_ends_in_an_error() -> None:
    ledger = Ledger()

    def fail() -> None:
        with ledger.phase("eval"):
            time.sleep(0.01)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert ledger.get("eval") >= 0.01
    with ledger.phase("step"):
        pass
    assert ledger.get("step") < 0.01


def test_unknown_names_come_with_the_nearest() -> None:
    assert "did you mean 'medium'" in str(unknown("policy", "medum", ["medium", "random"]))


def test_the_machine_describes_itself() -> None:
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["versions"]["torch"]
    assert machine["command"]


def test_cores_that_others_keep_busy_are_counted() -> None:
    assert 0 <= busy_cores(0.05) <= len(os.sched_getaffinity(0))
    spin = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    others = [subprocess.Popen([sys.executable, "-c", spin]) for _ in os.sched_getaffinity(0)]
    try:
        time.sleep(0.5)
        assert busy_cores() > 0.5
    finally:
        for other in others:
            other.kill()
            other.wait()
