"""The folder of a run: who may write to it, what is refused before it is made, what is the same run."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import prunekd
from prunekd.common.distributed import World
from prunekd.pruning import select
from prunekd.store import Store, open_store
from prunekd.training import RunSpec, Trainer, load_recipe
from prunekd.training.checkpoint import checkpoints
from prunekd.training.outcome import Run

WORLD = World(0, 1, torch.device("cpu"))
SMALL = ["epochs=2", "batch_size=16", "precision=fp32", "log_every=2", "train_view.size=12", "eval_view.size=12"]

KEEPING = ["checkpoint.every_steps=2", "checkpoint.keep_last=3"]


def spec(store: Store, out: Path, *overrides: str, **more: object) -> RunSpec:
    return RunSpec(store=store, recipe=load_recipe("demo", [*SMALL, *overrides]), out=out, **more)  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def stopped(tiny_store: Store, tmp_path: Path) -> Path:
    """A run with checkpoints after steps 2 and 4 of 12."""
    trainer = Trainer(spec(tiny_store, tmp_path / "run", *KEEPING), WORLD)
    trainer.train_epoch()
    trainer.close()
    shutil.rmtree(checkpoints(tmp_path / "run/checkpoints")[-1])
    return tmp_path / "run"


def resume(store: Store, out: Path) -> Trainer:
    trainer = Trainer(spec(store, out, *KEEPING), WORLD, resume="auto")
    trainer.close()
    return trainer


def test_two_runs_in_one_folder_are_refused_and_the_holder_named(tiny_store: Store, tmp_path: Path) -> None:
    first = Trainer(spec(tiny_store, tmp_path / "run"), WORLD)
    for how in (None, "auto"):
        with pytest.raises(RuntimeError, match=r"another run is writing to .*run \(this process on .*since"):
            Trainer(spec(tiny_store, tmp_path / "run"), WORLD, resume=how)
    first.fit()
    assert "lock" not in os.listdir(tmp_path / "run")
    assert (
        prunekd.train(tiny_store, recipe=first.spec.recipe, out=tmp_path / "run", resume="auto").path
        == tmp_path / "run"
    )


def test_a_run_that_fails_lets_go_of_its_folder(tiny_store: Store, tmp_path: Path) -> None:
    trainer = Trainer(spec(tiny_store, tmp_path / "run"), WORLD)
    trainer.on_progress(lambda values: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    resume_spec = spec(tiny_store, tmp_path / "run")
    Trainer(resume_spec, WORLD, resume="auto").close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["track=[dual]", "epochs=1"], "at least 2 epochs"),
        (["model.name=resnet1"], "unknown model"),
        (["batch_size=4000"], "larger than the 96 samples"),
        (["dynamic.policy=nosuch"], "unknown"),
        (["model.sync_batch_norm=true"], "GPUs only"),
        (["model.name=vit_tiny_patch16_224", "train_view.size=32", "eval_view.size=16"], "set train_view.size to 16"),
    ],
)
def test_what_fails_is_found_before_the_folder_is_made(
    tiny_store: Store, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Trainer(spec(tiny_store, tmp_path / "deep/run", *overrides), WORLD)
    assert os.listdir(tmp_path) == []
    (tmp_path / "deep/run").mkdir(parents=True)
    with pytest.raises(ValueError, match=message):
        Trainer(spec(tiny_store, tmp_path / "deep/run", *overrides), WORLD)
    assert os.listdir(tmp_path / "deep/run") == []


def test_a_refused_resumption_changes_nothing(tiny_store: Store, stopped: Path) -> None:
    before = tree(stopped)
    with pytest.raises(ValueError, match="optimizer"):
        Trainer(
            spec(tiny_store, stopped, *KEEPING, "optimizer.lr=9"),
            WORLD,
            resume="auto",
        )
    assert tree(stopped) == before


def test_a_run_goes_on_with_its_store_and_subset_under_other_paths(tiny_store: Store, tmp_path: Path) -> None:
    subset = select(tiny_store, policy="random", keep=0.5, seed=1)
    Trainer(spec(tiny_store, tmp_path / "run", subset=subset), WORLD).close()
    moved = open_store(shutil.copytree(tiny_store.path, tmp_path / "moved"))
    again = select(moved, policy="random", keep=0.5, seed=1)
    assert again.info != subset.info
    Trainer(spec(moved, tmp_path / "run", subset=again), WORLD, resume="auto").close()
    other = select(moved, policy="random", keep=0.5, seed=2)
    with pytest.raises(ValueError, match=r"subset\.seed = 1, not 2"):
        Trainer(spec(moved, tmp_path / "run", subset=other), WORLD, resume="auto")


def damage(path: Path, how: str) -> None:
    text = path.read_bytes()
    state = json.loads(text)
    if how == "cut":
        path.write_bytes(text[: len(text) // 2])
    elif how == "not UTF-8":
        path.write_bytes(b"\xff" + text)
    elif how == "a list":
        path.write_text("[]")
    elif how == "a key less":
        del state["position"]["ledger"]
    elif how == "another kind":
        state["position"]["epoch"] = "two"
    elif how == "groups":
        state["optimizer"] = [1]
        del state["digests"]
    elif how == "a digit":
        state["position"]["step_in_epoch"] += 1
    if how in ("a key less", "another kind", "groups", "a digit"):
        path.write_text(json.dumps(state))


@pytest.mark.parametrize(
    "how", ["cut", "not UTF-8", "a list", "a key less", "another kind", "groups", "a digit"]
)  # fmt: skip
def test_a_damaged_state_is_named_and_the_one_before_taken(
    tiny_store: Store, stopped: Path, told: list[str], how: str
) -> None:
    older, newest = checkpoints(stopped / "checkpoints")
    damage(newest / "state.json", how)
    assert resume(tiny_store, stopped).global_step == 2
    assert newest.name in told[0]
    assert "trying the one before" in told[0]
    damage(older / "state.json", how)
    with pytest.raises(ValueError, match=f"{older.name} cannot be loaded"):
        resume(tiny_store, stopped)


@pytest.mark.parametrize("name", ["model", "optimizer", "state"])
def test_a_flipped_bit_in_a_checkpoint_is_named(tiny_store: Store, stopped: Path, told: list[str], name: str) -> None:
    file = checkpoints(stopped / "checkpoints")[-1] / f"{name}.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert resume(tiny_store, stopped).global_step == 2
    assert f"{name}.safetensors changed since it was written" in told[0]


def test_a_checkpoint_of_a_version_without_digests_is_taken(tiny_store: Store, stopped: Path) -> None:
    file = checkpoints(stopped / "checkpoints")[-1] / "state.json"
    state = json.loads(file.read_text())
    del state["digests"]
    file.write_text(json.dumps(state))
    assert resume(tiny_store, stopped).global_step == 4


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{}", b'{"recipe": 1}', b"[" * 100_000])
def test_a_damaged_run_json_is_named(tiny_store: Store, stopped: Path, content: bytes) -> None:
    (stopped / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json"):
        resume(tiny_store, stopped)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"top1": "high"}', b'{"train_seconds": 1}'])
def test_a_damaged_result_is_named(stopped: Path, content: bytes) -> None:
    (stopped / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json"):
        Run.open(stopped)


@pytest.mark.parametrize("line", [b"\xff\xfe\n", b"[1]\n", b'{"kind": "epoch"}\n', b'{"kind": "tr\n', b"7\n"])
def test_damaged_lines_of_the_log_are_left_out(tiny_store: Store, stopped: Path, line: bytes) -> None:
    log = stopped / "metrics.jsonl"
    good = [json.dumps({"kind": "train", "step": step}).encode() + b"\n" for step in (1, 2, 9)]
    log.write_bytes(good[0] + line + good[1] + good[2] + b'{"kind": "epoch", "st')
    resume(tiny_store, stopped)
    assert log.read_bytes() == good[0] + good[1]


def test_a_run_killed_while_its_run_json_was_written_begins_again(tiny_store: Store, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.run.json.4711.tmp").write_text('{"recipe": {"bat')
    trainer = Trainer(spec(tiny_store, tmp_path / "run"), WORLD, resume="auto")
    trainer.close()
    assert (tmp_path / "run/run.json").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty"):
        Trainer(spec(tiny_store, tmp_path / "other"), WORLD, resume="auto")
