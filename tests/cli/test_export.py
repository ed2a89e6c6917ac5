"""`prunekd export` on the command line."""

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from prunekd.cli import main
from prunekd.store import Store


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_a_subset_becomes_a_folder_and_indices(tiny_store: Store, tmp_path: Path) -> None:
    subset, store = tmp_path / "half.parquet", tiny_store.path
    assert run("select", store, "--policy", "random", "--keep", 0.25, "--out", subset)[0] == 0
    code, output = run("export", store, "--subset", subset, "--format", "folder", "--out", tmp_path / "out")
    assert code == 0, output
    assert "24 samples as folder" in output
    assert len(list((tmp_path / "out").glob("*/*.png"))) == 24
    assert run("export", store, "--format", "tfrecord", "--out", tmp_path / "all", "--shard-mib", 0.01)[0] == 0
    code, output = run(
        "export", store, "--subset", subset, "--format", "tfrecord", "--out", tmp_path / "some",
        "--containers", tmp_path / "all", "--json",
    )  # fmt: skip
    assert code == 0, output
    info = json.loads(output[output.index("{") :])
    assert sum(shard["samples"] for shard in info["shards"]) == info["samples"] == 24
    assert info["subset"]["policy"] == "random"
    ids = np.load(tmp_path / "some/ids.npy")
    assert sorted(ids.tolist()) == sorted(np.load(tmp_path / "out/ids.npy").tolist())


def test_mistakes_end_with_exit_code_2_and_a_line(tiny_store: Store, tmp_path: Path) -> None:
    for arguments, message in (
        (("--format", "tfrec", "--out", tmp_path / "out"), "tfrecord"),
        (("--format", "npy", "--out", tmp_path), "exists"),
        (("--format", "npy", "--split", "test", "--out", tmp_path / "out"), "test"),
        (("--format", "npy", "--subset", tmp_path / "none.parquet", "--out", tmp_path / "out"), "none.parquet"),
    ):
        code, output = run("export", tiny_store.path, *arguments)
        assert code == 2, output
        assert message in output
