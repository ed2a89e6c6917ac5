"""Folders that one process at a time writes to."""

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prunekd.common.lock import HELD_FILE, LOCK_FILE, locked

HOLDER = """
import sys, time
from pathlib import Path
from prunekd.common.lock import locked
if sys.argv[2] == "no flock":
    import errno, fcntl
    def flock(*_): raise OSError(errno.ENOLCK, "No locks available")
    fcntl.flock = flock
with locked(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["flock", "no flock"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "no flock":

        def absent(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", absent)
    return str(request.param)


def test_the_holder_is_named_and_outlived(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), kind], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(RuntimeError, match=rf"another run is writing to .*run \(process {holder.pid} on .*-c"),
            locked(folder, "run"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    assert os.listdir(folder), "a killed process leaves its file"
    with locked(folder, "run"):
        assert len(os.listdir(folder)) == 1
    assert os.listdir(folder) == []


def test_one_process_locks_once_and_leaves_no_trace(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "deep" / "run"
    with locked(folder):
        with pytest.raises(RuntimeError, match="this process"), locked(folder):
            pass
        assert folder.exists()
    assert not (tmp_path / "deep").exists()
    with locked(folder):
        (folder / "result").touch()
    assert os.listdir(folder) == ["result"]


def test_releasing_a_renamed_folder_leaves_the_next_one_s_lock_alone(tmp_path: Path, kind: str) -> None:
    with locked(tmp_path / "a"):
        (tmp_path / "a").rename(tmp_path / "b")
        with locked(tmp_path / "a"):
            assert os.listdir(tmp_path / "a") in ([LOCK_FILE], [HELD_FILE])


@pytest.mark.parametrize("kind", ["no flock"], indirect=True)
def test_without_flock_another_host_s_lock_is_for_people_to_remove(tmp_path: Path, kind: str) -> None:
    holder = {"pid": 1, "started": 1, "host": "elsewhere", "command": "prunekd train", "since": "2026-01-01"}
    (tmp_path / HELD_FILE).write_text(json.dumps(holder))
    with pytest.raises(RuntimeError, match=r"process 1 on elsewhere.*remove .*lock\.held"), locked(tmp_path):
        pass
    holder["host"] = platform.node()  # a number that another process has now
    (tmp_path / HELD_FILE).write_text(json.dumps(holder))
    with locked(tmp_path):
        pass
