"""Verifying a store: damaged samples are found, all of them and no others, and so is an index that was exchanged."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from prunekd.cli import main
from prunekd.store import Payloads, Store, open_store
from prunekd.store.jobs import verify
from prunekd.store.jobs.verify import check_index, damaged


@pytest.fixture
def copy(tiny_store: Store, tmp_path: Path) -> Store:
    shutil.copytree(tiny_store.path, tmp_path / "store")
    return open_store(tmp_path / "store")


def spoil(store: Store, rows: list[int]) -> None:
    split = store.split("train")
    with open(split.path, "r+b") as file:
        for row in rows:
            at = int(split.pointers[row] + split.sizes[row] - 1)
            byte = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 16]), at)


def inspect(store: Store, *words: str) -> Result:
    return CliRunner().invoke(main, ["inspect", str(store.path), "--verify", *words])


@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
def test_every_damaged_sample_is_found(copy: Store, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(verify, "PIECE", piece)
    seen: list[tuple[int, int]] = []
    assert damaged(copy.split("train"), 2, lambda *done: seen.append(done)) == []
    assert seen[-1] == (96, 96)
    spoil(copy, [0, 63, 64, 95])
    assert [row for row, _ in damaged(copy.split("train"), 2)] == [0, 63, 64, 95]


def test_a_file_cut_short_since_is_named_sample_by_sample(copy: Store) -> None:
    split = copy.split("train")
    os.truncate(split.path, int(split.pointers[94]) + 1)
    found = damaged(split, 2)
    assert [row for row, _ in found] == [94, 95]
    assert all("train.beton ends inside row" in reason for _, reason in found)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
def test_storage_that_goes_away_damages_no_samples(copy: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    read = Payloads.read

    def failing(self: Payloads, row: int) -> bytes:
        if row == 40:
            raise OSError(number, os.strerror(number))
        return read(self, row)

    monkeypatch.setattr(Payloads, "read", failing)
    if number == errno.EIO:  # a bad sector damages what lies on it
        assert damaged(copy.split("train"), 2) == [(40, "Input/output error")]
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            damaged(copy.split("train"), 2)


def test_an_index_other_than_the_one_the_store_speaks_of_is_refused(copy: Store, tmp_path: Path) -> None:
    check_index(copy)
    info = json.loads((copy.path / "store.json").read_text())
    (copy.path / "store.json").write_text(json.dumps({**info, "fingerprint": "0" * 64}))
    with pytest.raises(ValueError, match="fingerprints differ"):
        check_index(open_store(copy.path))
    result = inspect(copy)
    assert result.exit_code == 2
    assert "fingerprints differ" in result.stderr


def test_inspect_lists_what_is_damaged_and_fails(copy: Store) -> None:
    assert inspect(copy).exit_code == 0
    assert "0 damaged" in inspect(copy).stdout
    spoil(copy, [5, 17])
    result = inspect(copy, "--json")
    assert result.exit_code == 1
    assert "2 samples; convert the dataset again" in result.stderr
    found = json.loads(result.stdout)["damaged"]
    split = copy.split("train")
    assert [(one["split"], one["id"]) for one in found] == [("train", 5), ("train", 17)]
    assert [one["key"] for one in found] == split.keys(np.array([5, 17]))
    assert "their checksum differs" in inspect(copy).stdout
