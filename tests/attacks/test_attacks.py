"""A seeded sample of the attacks, and controls that the harness notices what it is there to notice.

`make attacks` runs all of them, which takes hours.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attacks.flips import regions
from attacks.known import known
from attacks.results import Tally, Undisturbed, contents, table

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """What a process needs that forks children: this code, and no threads of OpenMP."""
    roots = os.pathsep.join(str(ROOT / name) for name in ("engine", "kernels", "tests"))
    return {**os.environ, "PYTHONPATH": roots, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_nothing_is_lost_or_wrong_in_silence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "attacks", "--sample", "1", "--verbs", "convert,select,labels,train,export"]
    done = subprocess.run(
        [*command, "--work", str(tmp_path / "material")],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_a_fault_happens_at_its_operation(tmp_path: Path) -> None:
    script = """if True:
        import sys
        from pathlib import Path
        from attacks.children import Child, Fault, run
        folder = Path(sys.argv[1])
        words = ["demo", "--out", "out/demo"]
        assert run(["doctor", "--nonsense"], folder).code == 2
        assert run(words, folder, Fault(at=1, act="kill", folder=folder / "out")).code == -9
        full = run(words, folder, Fault(at=1, act="full", folder=folder / "out"))
        assert full.told and "No space left" in full.errors, full
        child = Child(words, folder, Fault(at=1, act="pause", folder=folder / "out"))
        assert child.stopped()
        child.kill()
        assert child.wait().code == -9
    """
    done = subprocess.run([sys.executable, "-c", script, tmp_path], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_another_result_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"kept": 3, "seconds": 1.5, "host": "x"}')
    (tmp_path / "b.npy").write_bytes(b"1234")
    first = contents(tmp_path)
    (tmp_path / "a.json").write_text('{"kept": 3, "seconds": 2.5, "host": "y"}')
    expected = Undisturbed.of(first, contents(tmp_path))
    assert expected.difference(contents(tmp_path)) == ""
    (tmp_path / "b.npy").write_bytes(b"1235")
    assert "b.npy:bytes differs" in expected.difference(contents(tmp_path))
    (tmp_path / "b.npy").write_bytes(b"1234")
    (tmp_path / ".b.npy.77.tmp").touch()
    assert expected.difference(contents(tmp_path)) == "left over: .b.npy.77.tmp"
    (tmp_path / ".b.npy.77.tmp").unlink()
    (tmp_path / "a.json").write_text('{"kept": 4, "seconds": 2.5, "host": "y"}')
    assert "a.json:0.kept differs" in expected.difference(contents(tmp_path))


def test_a_finding_that_is_not_known_counts_as_wrong() -> None:
    tally = Tally("two at once", "score", "")
    tally.add("recovered")
    tally.add("wrong", "in silence, x differs")
    tally.add("wrong", "left over: .x.12.tmp")
    assert not known(tally, tally.wrong[0])
    assert known(tally, tally.wrong[1])
    assert table([tally]).splitlines()[-1].replace(" ", "") == "|all|||3|0|1|0|0|0|1|1|"


def test_bytes_of_text_fall_into_classes(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"lr": 0.5, "name": "sgd"}')
    found = {name: [path.read_bytes()[slice(*place)] for place in places] for name, places in regions(path).items()}
    assert found["keys"] == [b'"lr"', b'"name"']
    assert found["numbers"] == [b"0.5"]
    assert found["texts"] == [b'"sgd"']
    assert b"".join(found["structure"]) == b"{:,:}"
