"""What the verbs say of stores that are not there and of errors of the system."""

import errno
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from prunekd.cli import main
from prunekd.store.jobs.convert import convert
from prunekd.store.sources import open_source
from support import write_arrays

VERBS = {
    "inspect": [],
    "select": ["--policy", "random", "--keep", "0.5", "--out", "{tmp}/out.parquet"],
    "compact": ["--out", "{tmp}/out", "--subset", "{tmp}/none.parquet"],
    "export": ["--format", "npy", "--out", "{tmp}/out"],
    "score": ["--teacher", "none", "--out", "{tmp}/out.parquet"],
    "train": ["--recipe", "demo", "--out", "{tmp}/out"],
    "bench": ["--recipe", "demo", "--out", "{tmp}/out"],
    "labels": ["--recipe", "demo", "--teacher", "none", "--out", "{tmp}/out"],
}


def run(verb: str, store: Path, tmp_path: Path) -> str:
    (tmp_path / "none.parquet").touch()
    words = [word.format(tmp=tmp_path) for word in VERBS[verb]]
    result = CliRunner().invoke(main, [verb, str(store), *words])
    assert result.exit_code == 2, result.output
    assert not list(tmp_path.glob("out*"))
    (line,) = result.stderr.splitlines()
    return line


def stop(*_: int) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("verb", VERBS)
def test_an_interrupted_store_is_told_from_one_that_is_not_there(tmp_path: Path, verb: str) -> None:
    assert "nowhere does not exist" in run(verb, tmp_path / "nowhere", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        convert(open_source(write_arrays(tmp_path / "a.npz")), tmp_path / "store", progress=stop)
    told = run(verb, tmp_path / "store", tmp_path)
    assert f"the making of {tmp_path / 'store'} was interrupted; run the same command" in told


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "permissions"),
        (errno.EROFS, "written to"),
        (errno.EIO, "dmesg"),
        (errno.ENOSPC, "make room"),
        (errno.EXDEV, "--debug"),
    ],
)
def test_errors_of_the_system_name_the_file_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def failing(path: Path) -> None:
        raise OSError(number, os.strerror(number), "/some/file")

    monkeypatch.setattr("prunekd.store.format.store.read_description", failing)
    (tmp_path / "store").mkdir()
    (tmp_path / "store/store.json").write_text("{}")
    result = CliRunner().invoke(
        main, ["export", str(tmp_path / "store"), "--format", "npy", "--out", str(tmp_path / "x")]
    )
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"prunekd: error: /some/file: {os.strerror(number)}; ")
    assert remedy in line
    assert "[Errno" not in line


def test_a_folder_without_a_name_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "has no store.json" in run("select", Path("."), tmp_path)
    assert "has no store.json" in run("select", Path("/"), tmp_path)


def test_an_error_of_several_lines_is_told_in_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("epochs: [1,\nbatch_size: {")
    convert(open_source(write_arrays(tmp_path / "a.npz")), tmp_path / "store")
    words = ["train", str(tmp_path / "store"), "--recipe", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "mine.yaml" in line
