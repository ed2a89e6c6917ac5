"""The examples run with the real frameworks, and all see the batches that a Loader of the same seed gives."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.caches import cached_teacher
from prunekd import Loader
from prunekd.distill import CachedTeacher
from prunekd.input import ViewSettings
from prunekd.pruning import select
from prunekd.store import Store
from support import require

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FRAMEWORKS = {"lightning_loop": "lightning", "accelerate_loop": "accelerate", "hf_trainer": "transformers"}
VIEW = ViewSettings(kind="random_resized_crop", size=16, scale=(0.7, 1.0), ratio=(0.9, 1.1), flip=0.0)


def run(name: str, *arguments: object, processes: int = 1, **environment: str) -> str:
    """Run an example as a program and return what it prints."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--rdzv-backend", "c10d"]
    launch += ["--rdzv-endpoint", "localhost:0"]
    command = [sys.executable, *(launch if processes > 1 else []), str(EXAMPLES / f"{name}.py")]
    roots = os.pathsep.join([str(ROOT / "engine"), str(ROOT / "kernels")])
    env = {**os.environ, "PYTHONPATH": roots, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, env=env, timeout=250)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def batches(store: Store) -> list[list[list[int]]]:
    """Two epochs of the ids that every example is to see."""
    half = select(store, "random", keep=0.5, seed=0)
    with Loader(store, subset=half, batch_size=32, view=VIEW, seed=0) as loader:
        return [[batch.ids.tolist() for batch in loader] for _ in range(2)]


@pytest.mark.parametrize("name", ["plain_loop", *FRAMEWORKS])
def test_every_framework_sees_the_loaders_batches(name: str, tiny_store: Store, tmp_path: Path) -> None:
    if name in FRAMEWORKS:
        require(FRAMEWORKS[name])
    seen = tmp_path / "ids.json"
    printed = run(name, "--store", tiny_store.path, "--epochs", 2, "--ids", seen)
    first, second = batches(tiny_store)
    assert json.loads(seen.read_text()) == first + second
    assert 0 <= float(re.findall(r"student on half of the data ([\d.]+)", printed)[0]) <= 1


def test_two_processes_of_accelerate_share_the_batches_of_one(tiny_store: Store, tmp_path: Path) -> None:
    require("accelerate")
    given = ["--store", tiny_store.path, "--epochs", 2, "--ids", tmp_path / "ids.json"]
    run("accelerate_loop", *given, processes=2, ACCELERATE_USE_CPU="1")
    shares = [json.loads((tmp_path / name).read_text()) for name in ("ids.json", "ids.1.json")]
    first, second = batches(tiny_store)
    assert shares == [[batch[rank::2] for batch in first + second] for rank in range(2)]


def test_a_student_learns_from_digits_without_a_store_of_ones_own() -> None:
    printed = run("plain_loop")
    teacher, student = map(float, re.findall(r"(?:teacher|data) ([\d.]+)", printed))
    assert teacher > 0.8
    assert student > 0.6


def test_a_torchvision_student_needs_nothing_but_the_loss() -> None:
    assert len(re.findall(r"epoch \d: loss [\d.]+", run("torchvision_student", "--epochs", 2))) == 2


def test_examples_are_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= (90 if path.stem == "setting" else 80), path.name


def test_the_loops_of_the_docs_run(tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").symlink_to(tiny_store.path)
    select(tiny_store, "random", keep=0.5).save(tmp_path / "half.parquet")
    loop, replay = re.findall(r"```python\n(.*?)```", (ROOT / "docs/loops.md").read_text(), flags=re.DOTALL)
    view = ViewSettings(kind="center", size=32)
    names: dict[str, Any] = {"view": view}
    exec(compile(loop, "loops.md", "exec"), names)
    cached = cached_teacher(tiny_store, lambda images: torch.zeros(len(images), 10), view)
    monkeypatch.setattr(CachedTeacher, "open", lambda path, store: cached)
    exec(compile(replay, "loops.md", "exec"), names)
    assert names["loader"].epoch == names["replaying"].epoch == 2
    assert names["targets"].logits.shape == (16, 10)
