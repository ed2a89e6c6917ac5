"""Cached soft labels against the teacher's own logits of the same views, and what kills and mix-ups do to them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunekd.common.distributed import World
from prunekd.distill import (
    BreakEven,
    CachedTeacher,
    ObjectiveSettings,
    OnlineTeacher,
    TeacherSettings,
    create_objective,
)
from prunekd.distill.labels_file import LabelsWriter, layout
from prunekd.inference.label_pass import LabelSpec, choose_topk, make_labels, verify_labels
from prunekd.input import open_reader, train_plan
from prunekd.models import ModelCard, create_model, save_trained
from prunekd.pruning import Subset, select
from prunekd.store import Store
from prunekd.training import load_recipe

WORLD = World(0, 1, torch.device("cpu"))
RECIPE = load_recipe("demo", ["seed=5", "train_view.size=12", "train_view.flip=0.5", "distill.temperature=3"])
CARD = ModelCard(model="cifar_resnet8", num_classes=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), size=12)
VIEWS = 3


@pytest.fixture(scope="module")
def teacher() -> OnlineTeacher:
    return OnlineTeacher(create_model("cifar_resnet8", 4, seed=1), CARD, TeacherSettings(dtype=torch.float32))


@pytest.fixture(scope="module")
def made(tiny_store: Store, teacher: OnlineTeacher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Labels of three views of every sample: all logits, and the top 2."""
    folder = tmp_path_factory.mktemp("labels")
    for name, topk in (("full", None), ("top", 2)):
        make_labels(spec_of(tiny_store, teacher, topk), WORLD, folder / name, batch_size=40)
    return {name: folder / name for name in ("full", "top")}


def spec_of(store: Store, teacher: OnlineTeacher, topk: int | None, subset: Subset | None = None) -> LabelSpec:
    return LabelSpec(store=store, teacher=teacher, recipe=RECIPE, views=VIEWS, topk=topk, subset=subset)


def epoch_with_logits(store: Store, teacher: OnlineTeacher, cached: CachedTeacher, epoch: int) -> list[Any]:
    """(batch, the teacher's logits, the plan's view index) of a training epoch as a trainer plans it."""
    split = store.split("train")
    plan = train_plan(split, ids=None, seed=99, epoch=epoch, batch_size=32, view=RECIPE.train_view)
    plan = cached.replay(plan, epoch)
    with open_reader("torch", store, "train") as reader:
        return [(batch, teacher(batch.images).float(), plan.view_index) for batch in reader.epoch(plan)]


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_labels_are_the_teachers_logits_of_the_views_an_epoch_shows(
    tiny_store: Store, teacher: OnlineTeacher, made: dict[str, Path], epoch: int
) -> None:
    full, top = (CachedTeacher.open(made[name], tiny_store, view=RECIPE.train_view) for name in ("full", "top"))
    batches = epoch_with_logits(tiny_store, teacher, full, epoch)
    assert len(batches) == 3
    for batch, logits, view_index in batches:
        assert view_index == epoch % VIEWS == full.view_index_for(epoch)
        dense, sparse = full.lookup(batch.ids, view_index), top.lookup(batch.ids, view_index)
        torch.testing.assert_close(dense.logits.float(), logits, rtol=2e-3, atol=2e-3)
        assert dense.logits.dtype == torch.float16
        assert sparse.ids is not None
        assert sparse.ids.dtype == torch.int16
        values, classes = logits.topk(2, dim=1)
        torch.testing.assert_close(sparse.logits.float(), values, rtol=2e-3, atol=2e-3)
        apart = (values[:, :1] - values[:, 1:]).abs().squeeze(1) > 1e-2
        assert torch.equal(sparse.ids[apart].long(), classes[apart])
        torch.testing.assert_close(sparse.std, logits.std(1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sparse.logsumexp, torch.logsumexp(logits / 3, 1), rtol=1e-4, atol=1e-4)
        assert sparse.temperature == 3.0
    other_view = full.lookup(batches[0][0].ids, (epoch + 1) % VIEWS).logits
    assert not torch.allclose(other_view.float(), batches[0][1], atol=2e-2)


@pytest.mark.parametrize(("name", "limit"), [("full", 0.01), ("top", 0.5)])
def test_the_loss_from_cached_labels_is_the_online_teachers(
    tiny_store: Store, teacher: OnlineTeacher, made: dict[str, Path], name: str, limit: float
) -> None:
    cached = CachedTeacher.open(made[name], tiny_store)
    batch, logits, view_index = epoch_with_logits(tiny_store, teacher, cached, 2)[0]
    options = {"residual": "spread"}
    objective = create_objective("kd", ObjectiveSettings(alpha=0.9, temperature=3.0), options=options)
    student = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    online = objective(student, logits, batch.labels, None)
    from_cache = objective(student, cached.lookup(batch.ids, view_index), batch.labels, None)
    assert (from_cache - online).abs().max() < limit * online.abs().max()


def test_a_subset_has_labels_of_its_own_and_no_others(
    tiny_store: Store, teacher: OnlineTeacher, made: dict[str, Path], tmp_path: Path
) -> None:
    half = select(tiny_store, policy="random", keep=0.5)
    make_labels(spec_of(tiny_store, teacher, None, half), WORLD, tmp_path / "half", batch_size=7)
    cached = CachedTeacher.open(tmp_path / "half", tiny_store, ids=half.ids)
    assert np.array_equal(cached.ids, np.sort(half.ids))
    whole = CachedTeacher.open(made["full"], tiny_store)
    some = torch.from_numpy(half.ids[:9].copy())
    for view in range(VIEWS):
        torch.testing.assert_close(
            cached.lookup(some, view).logits, whole.lookup(some, view).logits, rtol=2e-3, atol=2e-3
        )
    missing = np.setdiff1d(tiny_store.split("train").ids, half.ids)
    with pytest.raises(ValueError, match=f"none for 48 samples, the first with id {missing[0]}"):
        CachedTeacher.open(tmp_path / "half", tiny_store)
    with pytest.raises(ValueError, match=f"the first with id {missing[3]}"):
        cached.lookup(torch.tensor([half.ids[0], missing[3]]), 0)


def test_a_cache_of_something_else_is_refused_with_the_first_difference(
    tiny_store: Store, teacher: OnlineTeacher, made: dict[str, Path]
) -> None:
    path = made["full"]
    CachedTeacher.open(path, tiny_store, view=RECIPE.train_view, seed=5, teacher_digest=teacher.digest)
    with pytest.raises(ValueError, match=r"view\.size = 12, not 16"):
        CachedTeacher.open(path, tiny_store, view=replace(RECIPE.train_view, size=16, flip=0.1))
    with pytest.raises(ValueError, match=r"view\.scale = \[0\.7, 1\.0\], not \[0\.5, 1\.0\]"):
        CachedTeacher.open(path, tiny_store, view=replace(RECIPE.train_view, scale=(0.5, 1.0)))
    with pytest.raises(ValueError, match="seed = 5, not 6"):
        CachedTeacher.open(path, tiny_store, seed=6)
    with pytest.raises(ValueError, match="speak of single images, the recipe mixes them"):
        CachedTeacher.open(path, tiny_store, mixed=True)
    with pytest.raises(ValueError, match=f"teacher.digest = '{teacher.digest}', not '0000'"):
        CachedTeacher.open(path, tiny_store, teacher_digest="0000")
    foreign = replace(tiny_store, fingerprint="f" * 64)
    with pytest.raises(ValueError, match=r"belong to .*not to .*ffffffffffff.*make others: prunekd labels"):
        CachedTeacher.open(path, foreign)


def test_damaged_and_unfinished_labels_are_named(tiny_store: Store, made: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no labels\.json; make soft labels with"):
        CachedTeacher.open(tmp_path / "nothing", tiny_store)
    (tmp_path / ".begun.partial").mkdir()
    with pytest.raises(ValueError, match="begun are not finished"):
        CachedTeacher.open(tmp_path / "begun", tiny_store)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in made["top"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    CachedTeacher.open(copy, tiny_store)
    os.truncate(copy / "topk_ids.npy", 700)
    with pytest.raises(ValueError, match=r"topk_ids\.npy cannot be read"):
        CachedTeacher.open(copy, tiny_store)
    np.save(copy / "topk_ids.npy", np.zeros((VIEWS, 96, 3), np.int16))
    with pytest.raises(
        ValueError, match=r"topk_ids\.npy holds int16 \(3, 96, 3\), labels\.json says int16 \(3, 96, 2\)"
    ):
        CachedTeacher.open(copy, tiny_store)


def without_digests(path: Path) -> None:
    """As 0.1.0 wrote them."""
    info = json.loads((path / "labels.json").read_text())
    del info["digests"]
    (path / "labels.json").write_text(json.dumps(info))


@pytest.mark.parametrize("name", ["logits", "topk_ids", "std", "logsumexp"])
def test_records_that_changed_on_the_disk_are_noticed_before_they_are_used(
    tiny_store: Store, made: dict[str, Path], tmp_path: Path, name: str
) -> None:
    copy = shutil.copytree(made["top"], tmp_path / "copy")
    array = np.load(copy / f"{name}.npy", mmap_mode="r+")
    array.view(np.uint8).reshape(array.shape[0], -1)[1, 40] ^= 1
    array.flush()
    cached = CachedTeacher.open(str(copy), tiny_store)
    ids = torch.arange(4)
    for _ in range(2):
        for view in (0, 2):
            cached.lookup(ids, view)
        with pytest.raises(ValueError, match=r"copy are damaged: those of view 1 are not what their digest"):
            cached.lookup(ids, 1)
    with pytest.raises(ValueError, match=r"view_index is 3, and the soft labels .* have views 0 to 2"):
        cached.lookup(ids, 3)


def test_ids_of_labels_that_changed_are_noticed(tiny_store: Store, made: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(made["top"], tmp_path / "copy")
    ids = np.load(copy / "sample_ids.npy")
    ids[-1] += 1
    np.save(copy / "sample_ids.npy", ids)
    with pytest.raises(ValueError, match=r"sample_ids\.npy is damaged: it is not what its digest says"):
        CachedTeacher.open(copy, tiny_store)
    without_digests(copy)
    CachedTeacher.open(copy, tiny_store, ids=np.arange(4))
    ids[:2] = ids[1::-1]
    np.save(copy / "sample_ids.npy", ids)
    with pytest.raises(ValueError, match=r"sample_ids\.npy is damaged: its ids do not ascend from 0 on"):
        CachedTeacher.open(copy, tiny_store)


def test_labels_without_digests_are_judged_by_what_they_hold(
    tiny_store: Store, made: dict[str, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(made["top"], tmp_path / "copy")
    without_digests(copy)
    ids = torch.arange(4)
    CachedTeacher.open(copy, tiny_store).lookup(ids, 1)
    for name, value in (("topk_ids", 4), ("topk_ids", -1), ("std", np.nan), ("logits", np.inf)):
        array = np.load(copy / f"{name}.npy")
        broken = array.copy()
        broken.reshape(VIEWS, -1)[1, 17] = value
        np.save(copy / f"{name}.npy", broken)
        cached = CachedTeacher.open(copy, tiny_store)
        cached.lookup(ids, 0)
        with pytest.raises(ValueError, match="those of view 1 hold numbers that are not finite or classes outside"):
            cached.lookup(ids, 1)
        np.save(copy / f"{name}.npy", array)


def test_an_attempt_goes_on_with_its_own_samples_alone(
    tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path
) -> None:
    one, other = (Subset.of_ids(tiny_store, ids) for ids in (np.arange(8), np.arange(8) + 8))
    assert one.info == other.info
    begun = spec_of(tiny_store, teacher, 2, one)
    LabelsWriter(tmp_path / "l", begun.plan()).begin(begun.ids)
    with pytest.raises(ValueError, match="was begun with other samples under the same description"):
        make_labels(spec_of(tiny_store, teacher, 2, other), WORLD, tmp_path / "l")


def test_the_verifier_accepts_what_was_made_and_finds_what_was_not(
    tiny_store: Store, teacher: OnlineTeacher, made: dict[str, Path], tmp_path: Path
) -> None:
    for path in made.values():
        facts = verify_labels(path, tiny_store, teacher, records=60, batch_size=11)
        assert facts.records == 60
        assert facts.median <= facts.worst < 2e-3
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for file in made["top"].iterdir():
        (wrong / file.name).write_bytes(file.read_bytes())
    logits = np.load(wrong / "logits.npy")
    np.save(wrong / "logits.npy", np.roll(logits, 1, axis=0))  # every view has the labels of another
    with pytest.raises(RuntimeError, match=r"damaged: those of view \d are not what their digest in labels\.json says"):
        verify_labels(wrong, tiny_store, teacher, records=96)
    without_digests(wrong)
    with pytest.raises(RuntimeError, match=r"of 96 soft labels in .* are not what cifar_resnet8 says: view \d of"):
        verify_labels(wrong, tiny_store, teacher, records=96)
    other = OnlineTeacher(create_model("cifar_resnet8", 4, seed=2), CARD, TeacherSettings(dtype=torch.float32))
    with pytest.raises(ValueError, match=r"made with teacher\.digest"):
        verify_labels(made["top"], tiny_store, other)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from prunekd.distill import OnlineTeacher, TeacherSettings
from prunekd.distill.teacher_files import load_teacher_model
from prunekd.store import open_store
from prunekd.common.distributed import open_world
from prunekd.inference import label_pass
from prunekd.training import load_recipe

store, run, out, dies_after = open_store(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
label_pass.BLOCK_RECORDS = 32
with open_world("cpu") as world:
    teacher = OnlineTeacher(*load_teacher_model(run), TeacherSettings(dtype=torch.float32))
    spec = label_pass.LabelSpec(
        store=store, teacher=teacher, views=3, topk=2,
        recipe=load_recipe("demo", ["seed=5", "train_view.size=12", "train_view.flip=0.5", "distill.temperature=3"]),
    )
    blocks = []
    def progress(done, total):
        blocks.append(done)
        if len(blocks) == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
    info = label_pass.make_labels(spec, world, out, batch_size=16, progress=progress)
    print("blocks", world.rank, len(blocks), info["resumed"])
"""


@pytest.fixture(scope="module")
def script(teacher: OnlineTeacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("script")
    save_trained(folder / "model.safetensors", create_model("cifar_resnet8", 4, seed=1), CARD)
    (folder / "script.py").write_text(KILLED)
    return folder


@pytest.fixture(scope="module")
def whole(tiny_store: Store, script: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labels of an attempt that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "labels"
    assert run_script(script, tiny_store, out, 0).returncode == 0
    return out


def run_script(script: Path, store: Store, out: Path, dies_after: int, processes: int = 1) -> Any:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--rdzv-backend", "c10d"]
    launcher = [*launcher, "--rdzv-endpoint", "localhost:0"] if processes > 1 else []
    words = [str(script / "script.py"), str(store.path), str(script), str(out), str(dies_after)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *launcher, *words], capture_output=True, text=True, env=environment)


def same_arrays(one: Path, other: Path) -> bool:
    names = sorted(file.name for file in one.glob("*.npy"))
    assert names == sorted(file.name for file in other.glob("*.npy"))
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_killed_pass_goes_on_after_its_last_block_and_gives_the_same_bytes(
    tiny_store: Store, script: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    assert run_script(script, tiny_store, out, 4).returncode == -signal.SIGKILL
    assert not out.exists()
    journal = tmp_path / ".killed.partial/done-0.txt"
    assert journal.read_text() == "0 0 32\n0 32 64\n0 64 96\n1 0 32\n"
    with journal.open("a") as file:
        file.write("1 32 6")  # a line that was being written
    went_on = run_script(script, tiny_store, out, 0)
    assert "blocks 0 5 True" in went_on.stdout, went_on.stderr
    assert same_arrays(out, whole)
    assert not (tmp_path / ".killed.partial").exists()
    assert sorted(p.name for p in out.iterdir() if p.suffix != ".npy") == ["labels.json"]


def test_two_processes_share_the_work_and_a_killed_pair_can_be_finished_by_one(
    tiny_store: Store, script: Path, whole: Path, tmp_path: Path
) -> None:
    shared = run_script(script, tiny_store, tmp_path / "shared", 0, processes=2)
    assert shared.returncode == 0, shared.stderr[-2000:]
    assert "blocks 0 5 False" in shared.stdout
    assert "blocks 1 4 False" in shared.stdout
    assert same_arrays(tmp_path / "shared", whole)
    assert run_script(script, tiny_store, tmp_path / "killed", 2, processes=2).returncode != 0
    assert len(list((tmp_path / ".killed.partial").glob("done-*.txt"))) >= 1
    assert run_script(script, tiny_store, tmp_path / "killed", 0).returncode == 0
    assert same_arrays(tmp_path / "killed", whole)


def test_an_attempt_with_other_settings_and_finished_labels_are_not_overwritten(
    tiny_store: Store, teacher: OnlineTeacher, made: dict[str, Path], tmp_path: Path
) -> None:
    spec = spec_of(tiny_store, teacher, 2)
    with pytest.raises(ValueError, match="exists; soft labels are never overwritten"):
        make_labels(spec, WORLD, made["full"])
    LabelsWriter(tmp_path / "l", spec.plan()).begin(spec.ids)
    with pytest.raises(ValueError, match="was begun with topk = 2, not 3"):
        make_labels(replace(spec, topk=3), WORLD, tmp_path / "l")
    colder = replace(RECIPE, distill=replace(RECIPE.distill, temperature=1.0))
    with pytest.raises(ValueError, match=r"was begun with temperature = 3\.0, not 1\.0"):
        make_labels(replace(spec, recipe=colder), WORLD, tmp_path / "l")


def test_labels_that_do_not_fit_on_the_disk_are_not_begun(
    tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = VIEWS * 96 * 4 * 2
    for free in (needed - 1, needed):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr("prunekd.distill.labels_file.shutil.disk_usage", lambda _, usage=usage: usage)
        if free < needed:
            with pytest.raises(OSError, match=r"the soft labels take 0\.0 GiB and .* has 0\.0 GiB free"):
                make_labels(spec_of(tiny_store, teacher, None), WORLD, tmp_path / "l")
        else:
            make_labels(spec_of(tiny_store, teacher, None), WORLD, tmp_path / "l")


def test_labels_that_are_not_finite_are_not_written(tiny_store: Store, tmp_path: Path) -> None:
    model = create_model("cifar_resnet8", 4, seed=1)
    model.fc.bias.data[2] = 1e6  # beyond float16
    broken = OnlineTeacher(model, CARD, TeacherSettings(dtype=torch.float32))
    with pytest.raises(ValueError, match="not finite in float16 for samples 0, 1, 2, 3, 4 and 91 more"):
        make_labels(spec_of(tiny_store, broken, None), WORLD, tmp_path / "l")
    assert not (tmp_path / "l").exists()


def test_the_description_is_what_was_asked_for(
    made: dict[str, Path], tiny_store: Store, teacher: OnlineTeacher
) -> None:
    info = json.loads((made["top"] / "labels.json").read_text())
    assert info["fingerprint"] == tiny_store.fingerprint
    assert info["teacher"]["digest"] == teacher.digest
    assert info["view"] == RECIPE.train_view.to_dict()
    assert info["normalisation"] == {"mean": list(RECIPE.mean), "std": list(RECIPE.std)}
    assert (info["seed"], info["views"], info["topk"], info["samples"], info["classes"]) == (5, VIEWS, 2, 96, 4)
    records = sum(array.nbytes for array in map(np.load, made["top"].glob("*.npy"))) - 96 * 8
    assert records == VIEWS * 96 * (2 * (2 + 2) + 4 + 4)


@pytest.mark.parametrize(("classes", "dtype"), [(32768, "int16"), (32769, "int32")])
def test_class_ids_have_the_narrowest_type_that_holds_them(classes: int, dtype: str) -> None:
    assert layout(1, 1, classes, 5)["topk_ids"][0] == np.dtype(dtype)


def test_how_much_is_kept_is_chosen_by_the_number_of_classes() -> None:
    assert choose_topk(None, 100)[0] is None
    assert choose_topk(None, 101)[0] == 20
    assert choose_topk("full", 1000)[0] is None
    assert choose_topk("7", 7)[0] == 7
    for wrong in ("8", "0", "-1", "all"):
        with pytest.raises(ValueError, match=rf"topk is '{wrong}'; it must be full or a number from 1 to 7"):
            choose_topk(wrong, 7)


@given(views=st.integers(1, 40), epochs=st.integers(1, 40), runs=st.integers(1, 40))
def test_break_even_counts_teacher_passes(views: int, epochs: int, runs: int) -> None:
    balance = BreakEven(views=views, epochs=epochs, runs=runs)
    assert balance.pays == (views < sum(epochs for _ in range(runs)))
    least = next(r for r in range(1, 100) if views < epochs * r)
    assert balance.from_runs == least
    assert ("saves" in str(balance)) == balance.pays


def test_break_even_in_words() -> None:
    assert "the cache saves 92 of 100" in str(BreakEven(views=8, epochs=100, runs=1))
    assert "does not pay; it would from 2 runs on" in str(BreakEven(views=8, epochs=8, runs=1))
    with pytest.raises(ValueError, match="runs is 0"):
        BreakEven(views=8, epochs=8, runs=0)
