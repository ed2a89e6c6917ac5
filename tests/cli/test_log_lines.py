"""What the command line shows of the logger `prunekd`."""

import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from prunekd.cli import main
from support import write_arrays


def test_each_line_is_shown_once_also_where_a_verb_calls_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_arrays(tmp_path / "a.npz")
    lines = CliRunner().invoke(main, ["convert", str(source), str(tmp_path / "store")]).stderr.splitlines()
    assert sum("is read as arrays" in line for line in lines) == 1

    def enough(*_: object, **__: object) -> None:
        raise RuntimeError("that is enough")

    monkeypatch.setattr("prunekd.api.training.train", enough)
    result = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "demo")])
    assert "that is enough" in result.output
    assert sum("is read as arrays" in line for line in result.stderr.splitlines()) == 1
    assert not [handler for handler in logging.getLogger("prunekd").handlers if type(handler).__name__ == "_Lines"]
