"""The folder of a sweep: who may write to it, damaged files, processes that ran at the same time."""

import json
import shutil
from pathlib import Path

import pytest

import prunekd
from prunekd.common.lock import locked
from prunekd.reporting.results import read_sweep
from prunekd.store import Store, open_store

STUDY = {
    "recipe": "demo",
    "settings": {"epochs": 1, "batch_size": 16, "precision": "fp32", "train_view.size": 12, "eval_view.size": 12},
    "arms": ["plain"],
    "keeps": [1],
}


def train(store: Store, out: Path, **more: object) -> prunekd.Sweep:
    return prunekd.run_sweep({**STUDY, **more}, store, out=out, device="cpu")


@pytest.fixture(scope="module")
def made(tiny_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "sweep"
    train(tiny_store, out)
    return out


@pytest.fixture
def sweep(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "sweep"))


def test_two_sweeps_in_one_folder_are_refused(tiny_store: Store, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    with locked(out, "sweep"), pytest.raises(RuntimeError, match=r"another sweep is writing to .*this process"):
        train(tiny_store, out)
    assert not out.exists()
    assert train(tiny_store, out).planned == 1
    assert not list(out.rglob("lock"))


def test_a_run_of_a_sweep_is_held_too(tiny_store: Store, sweep: Path) -> None:
    run = sweep / "runs/plain-all-keep1-seed0"
    (run / "result.json").unlink()
    with locked(run, "run"), pytest.raises(RuntimeError, match="another run is writing"):
        train(tiny_store, sweep)


@pytest.mark.parametrize("name", ["sweep.json", "ledger.json", "runs/plain-all-keep1-seed0/result.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"7", b"\xff\xfe", b"[" * 100_000])
def test_damaged_files_are_named(tiny_store: Store, sweep: Path, name: str, content: bytes) -> None:
    (sweep / name).write_bytes(content)
    for use in (lambda: train(tiny_store, sweep), lambda: prunekd.report(sweep)):
        with pytest.raises(ValueError, match=Path(name).name.replace(".", r"\.")):
            use()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("runs", {}), ("arms", [1]), ("keeps", ["half"]), ("costs", []), ("arm_settings", []),
        ("arm_settings", {"plain": 3}), ("arm_settings", {"plain": {"name": "plain"}}), ("commands", [3]),
        ("machine", 3), ("store", 3), ("recipe", None), ("teacher", 5), ("seeds", None),
    ],
)  # fmt: skip
def test_damaged_parts_of_sweep_json_are_named(tiny_store: Store, sweep: Path, key: str, value: object) -> None:
    facts = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps({**facts, key: value}))
    with pytest.raises(ValueError, match=rf"sweep\.json.*{key}"):
        prunekd.report(sweep, sweep / "report.md")


def test_a_sweep_goes_on_with_its_store_under_another_path(tiny_store: Store, sweep: Path, tmp_path: Path) -> None:
    moved = open_store(shutil.copytree(tiny_store.path, tmp_path / "moved"))
    assert train(moved, sweep, seeds=2).planned == 2
    with pytest.raises(ValueError, match="another recipe"):
        train(moved, sweep, settings={**STUDY["settings"], "epochs": 2})  # type: ignore[dict-item]


def test_processes_are_timed_and_those_that_overlapped_are_told(tiny_store: Store, sweep: Path) -> None:
    (process,) = read_sweep(sweep).processes
    assert process.began is not None
    assert process.ended is not None
    assert process.began <= process.ended
    assert "same time" not in prunekd.report(sweep).text("md")
    file = sweep / "ledger.json"
    ledger = json.loads(file.read_text())
    mine = ledger["processes"][0]
    times = [("10:00:00", "11:00:00", 1), ("11:00:00", "12:00:00", 2), ("11:30:00", "13:00:00", 3)]
    ledger["processes"] = [
        {**mine, "pid": pid, "host": "h", "began": f"2026-01-01T{a}+00:00", "ended": f"2026-01-01T{b}+00:00"}
        for a, b, pid in times
    ]
    file.write_text(json.dumps(ledger))
    found = prunekd.report(sweep, sweep / "report.html")
    for text in (*found.headlines, found.text("md")):
        if "same time" in text:
            assert "process 2 on h (2026-01-01 11:00:00 to 12:00:00) and process 3 on h" in text
            assert "process 1 " not in text
    assert any("same time" in line for line in found.headlines)
    for suffix in ("html", "md", "json"):
        assert "ran at the same time" in (sweep / f"report.{suffix}").read_text()
    del ledger["processes"][0]["began"]  # as 0.1.0 wrote it
    file.write_text(json.dumps(ledger))
    assert len(read_sweep(sweep).processes) == 3
