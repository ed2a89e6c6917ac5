"""The ledger: exclusive phases, ledgers in turn, the process's own clock, several processes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunekd.common.ledger import Ledger, critical_path, process_age
from prunekd.store import Store


def test_ledgers_in_turn_book_in_their_parent_too() -> None:
    whole = Ledger()
    first, second = Ledger(whole), Ledger(whole)
    with whole.phase("other"):
        for ledger, seconds in ((first, 0.02), (second, 0.03), (first, 0.01)):
            with ledger.phase("step"):
                time.sleep(seconds)
                with ledger.phase("eval"):
                    time.sleep(seconds)
            ledger.count("images", 5)
        time.sleep(0.02)
    assert first.seconds["step"] >= 0.03
    assert second.seconds["step"] >= 0.03
    for name in ("step", "eval"):
        assert whole.seconds[name] == pytest.approx(first.seconds[name] + second.seconds[name], abs=5e-3)
    assert whole.seconds["other"] >= 0.02
    assert whole.counters == {"images": 15}
    # what an earlier process booked was in that process's ledgers: the parent's is this process's own
    before = whole.to_dict()["wall_seconds"]
    first.restore({"seconds": {"step": 100.0}, "counters": {"images": 7}})
    assert first.counters["images"] == 17
    assert whole.to_dict()["wall_seconds"] == pytest.approx(before)
    assert whole.counters == {"images": 15}


def test_the_age_of_a_process_is_counted_from_its_start() -> None:
    code = "import time; from prunekd.common.ledger import process_age; time.sleep(0.3); print(process_age())"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tick = 0.01  # what Linux rounds the start down to
    assert 0.3 <= float(done.stdout) <= time.perf_counter() - started + tick
    assert process_age() > 0


def test_the_critical_path_waits_for_the_slowest_and_fills_the_longest_wall() -> None:
    ranks = [
        {"setup": 2.0, "data_wait": 1.0, "step": 10.0, "checkpoint": 1.0},
        {"setup": 1.0, "data_wait": 5.0, "step": 8.0},
    ]
    found = critical_path(ranks)
    assert found == {"setup": 2.0, "data_wait": 5.0, "checkpoint": 1.0, "step": 6.0}
    assert sum(found.values()) == 14.0
    assert critical_path(ranks[:1]) == ranks[0]


def test_a_run_books_every_second_from_its_process_s_start(tiny_store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = [f"--set={item}" for item in ("epochs=3", "batch_size=16", "train_view.size=12", "eval_view.size=12")]
    command = [sys.executable, "-m", "prunekd", "train", tiny_store.path, "--recipe", "demo", *settings, "--out", out]
    started = time.time()
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    result = out / "result.json"
    wall = result.stat().st_mtime - started
    booked = json.loads(result.read_text())["ledger"]
    assert booked["wall_seconds"] == pytest.approx(sum(booked["seconds"].values()))
    assert booked["wall_seconds"] == pytest.approx(wall, rel=0.01)
    assert booked["seconds"]["imports"] > 0.2
    assert booked["seconds"]["other"] < 0.1 * wall
