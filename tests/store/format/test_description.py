"""store.json: every entry is held against what it must be and against the files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prunekd.store import Store, open_store

SOURCE = {"kind": "arrays", "path": "/x", "listing": "0"}


@pytest.fixture
def path(tiny_store: Store, tmp_path: Path) -> Path:
    shutil.copytree(tiny_store.path, tmp_path / "store")
    return tmp_path / "store"


def counts(**changes: Any) -> dict[str, Any]:
    return {"train": {"samples": 96, "bytes": 96 * 12 * 12 * 3, **changes}}


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("classes", ["a", "b", "c", "a"], "different names"),
        ("classes", ["a", "b", "c", 4], "different names"),
        ("splits", counts(samples=95), "it says 95 samples of train, and there are 96"),
        ("splits", counts(bytes=7), "it says 7 bytes of train"),
        ("splits", counts(quarantined=2), "it says 2 quarantined of train, and there are 0"),
        ("splits", counts(verbatim=-1), "from 0 on"),
        ("splits", counts(raw=True), "from 0 on"),
        ("splits", {"train": {"bytes": 3}}, "samples, bytes"),
        ("source", {}, "kind, path and listing"),
        ("source", {**SOURCE, "path": 3}, "kind, path and listing"),
        ("source", {**SOURCE, "folders": {"train": 3}}, "kind, path and listing"),
        ("source", {**SOURCE, "val_fraction": "half"}, "kind, path and listing"),
        ("source", {**SOURCE, "val_fraction": float("nan")}, "kind, path and listing"),
        ("source", {**SOURCE, "layout": {"rm": "x"}}, "kind, path and listing"),
        ("settings", {"max_side": None}, "numbers and texts"),
        ("ignored", {".txt": -1}, "from 0 on"),
        ("ignored", {".txt": "many"}, "from 0 on"),
        ("quarantined", [{"split": "train", "key": 7, "reason": ""}], "a list of"),
        (
            "compacted",
            {"split": "test", "parent": {}, "ranking": {}, "lineage": []},
            "about the split 'test', and there are train, val",
        ),
        (
            "compacted",
            {"split": "train", "parent": {"samples": 95}, "ranking": {}, "lineage": []},
            "96 samples, more than the 95 of the store it is a part of",
        ),
        ("compacted", {"split": "train", "parent": {"path": 1}, "ranking": {}, "lineage": []}, "a map with split"),
    ],
)
def test_what_cannot_be_is_named_with_its_entry(path: Path, entry: str, value: Any, message: str) -> None:
    file = path / "store.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), entry: value}))
    with pytest.raises(ValueError, match=message) as caught:
        open_store(path)
    assert str(file) in str(caught.value)
    assert "convert the dataset again" in str(caught.value)


def test_what_is_right_is_read(path: Path, tiny_store: Store) -> None:
    file = path / "store.json"
    info = json.loads(file.read_text())
    info["source"]["path"] = "/elsewhere"  # a source may have moved
    info["compacted"] = {"split": "train", "parent": {}, "ranking": {}, "lineage": []}
    file.write_text(json.dumps(info))
    store = open_store(path)
    assert store.whole("train") == 96
    assert store.counts == tiny_store.counts
