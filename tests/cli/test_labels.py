"""`prunekd labels` from the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from prunekd.cli import main
from prunekd.distill import CachedTeacher
from prunekd.models import ModelCard, create_model, save_trained
from prunekd.store import Store, open_store

LABELS = ["--recipe", "demo", "--batch-size", "32", "--workers", "1"]


def run(*words: Any, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of these tests are not remembered beyond them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    classes = tuple(f"class{k}" for k in range(4))
    card = ModelCard(model="cifar_resnet8", num_classes=4, size=16, classes=classes)
    save_trained(path, create_model("cifar_resnet8", 4, seed=3), card)
    return path


def test_labels_are_made_checked_and_opened(tiny_store: Store, teacher: Path, tmp_path: Path) -> None:
    half, out = tmp_path / "half.parquet", tmp_path / "labels"
    run("select", tiny_store.path, "--policy", "random", "--keep", 0.5, "--out", half)
    made = run(
        "labels", tiny_store.path, "--teacher", teacher, *LABELS, "--subset", half, "--views", 2, "--topk", 3,
        "--seed", 7, "--temperature", 2, "--out", out, "--json",
    )  # fmt: skip
    facts = json.loads(made.stdout)
    assert facts["records"] == 96
    assert facts["break_even"]["pays"]
    assert facts["bytes"] > 96 * 20
    assert "48 samples x 2 views of seed 7, the top 3 of 4 logits" in made.stderr
    assert "the cache saves 10 of 12" in made.stderr
    cached = CachedTeacher.open(out, open_store(tiny_store.path), ids=np.empty(0, np.int64), seed=7)
    assert (cached.views, cached.topk, cached.temperature) == (2, 3, 2.0)
    checked = run("labels", tiny_store.path, "--verify", out, "--records", 40, "--workers", 1)
    assert "40 records computed anew" in checked.stdout


def test_the_default_keeps_all_logits_of_few_classes_and_says_when_a_cache_does_not_pay(
    tiny_store: Store, teacher: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels"
    words = ["--set", "epochs=2", "--views", 2, "--out", out]
    made = run("labels", tiny_store.path, "--teacher", teacher, *LABELS, *words)
    assert "all 4 logits: at most 100 classes" in made.stderr
    assert "the cache does not pay; it would from 2 runs on" in made.stderr
    assert np.load(out / "logits.npy").shape == (2, 96, 4)


def test_the_teacher_can_be_an_ensemble_at_its_own_size(tiny_store: Store, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    words = ["--teacher-precision", "auto", "--teacher-size", "own", "--teacher-compile", "off", "--out", out]
    made = run("labels", tiny_store.path, "--teacher", f"{teacher},{teacher}", *LABELS, "--views", 1, *words)
    assert "is fastest for cifar_resnet8+cifar_resnet8, 32 x 16 x 16 resized to own" in made.stderr
    checked = run("labels", tiny_store.path, "--verify", out, "--records", 20, "--workers", 1)
    assert "20 records computed anew" in checked.stdout


def test_a_check_that_fails_ends_with_exit_code_1(tiny_store: Store, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    run("labels", tiny_store.path, "--teacher", teacher, *LABELS, "--views", 1, "--out", out)
    logits = np.load(out / "logits.npy")
    np.save(out / "logits.npy", logits[:, ::-1])
    result = run("labels", tiny_store.path, "--verify", out, "--workers", 1, code=1)
    assert "are not what their digest in labels.json says" in result.stderr
    info = json.loads((out / "labels.json").read_text())
    del info["digests"]  # as 0.1.0 wrote them
    (out / "labels.json").write_text(json.dumps(info))
    result = run("labels", tiny_store.path, "--verify", out, "--workers", 1, code=1)
    assert "are not what cifar_resnet8 says" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--teacher", "{teacher}", "--recipe", "demo"], "give --out LABELS to make soft labels, or --verify LABELS"),
        (["--teacher", "{teacher}", "--out", "{tmp}/l"], "making soft labels needs --recipe"),
        (["--recipe", "demo", "--out", "{tmp}/l"], "making soft labels needs --teacher"),
        (["--teacher", "{teacher}", "--recipe", "demo", "--topk", "9", "--out", "{tmp}/l"], "topk is '9'"),
        (
            ["--teacher", "{teacher}", "--recipe", "demo", "--teacher-size", "big", "--out", "{tmp}/l"],
            "the teacher's size is 'big'",
        ),
        (["--teacher", "{teacher}", "--recipe", "demo", "--out", "{tmp}"], "never overwritten"),
        (["--verify", "{tmp}"], "holds no labels.json"),
    ],
)
def test_bad_usage_is_one_line_that_names_it(
    tiny_store: Store, teacher: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    filled = [word.format(teacher=teacher, tmp=tmp_path) for word in words]
    result = run("labels", tiny_store.path, *filled, code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
