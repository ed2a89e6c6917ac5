"""The trainer on a small store: learning, resuming, stopping, refusing."""

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from prunekd.common.distributed import World
from prunekd.distill import CachedTeacher, OnlineTeacher, TeacherSettings, open_teacher
from prunekd.inference.label_pass import LabelSpec, make_labels
from prunekd.models import load_trained
from prunekd.pruning import select
from prunekd.pruning.scores import read_scores
from prunekd.store import Store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from prunekd.training import Recipe, RunSpec, Trainer, load_recipe

WORLD = World(0, 1, torch.device("cpu"))


def recipe(*overrides: str) -> Recipe:
    small = ["epochs=2", "batch_size=16", "precision=fp32", "log_every=2", "train_view.size=12", "eval_view.size=12"]
    return load_recipe("demo", [*small, *overrides])


@pytest.fixture(scope="module")
def teacher_run(tiny_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    Trainer(RunSpec(store=tiny_store, recipe=recipe("epochs=6"), out=out), WORLD).fit()
    return out


@pytest.fixture
def teacher(teacher_run: Path, tiny_store: Store) -> OnlineTeacher:
    return open_teacher(str(teacher_run), tiny_store.classes, TeacherSettings(dtype=torch.float32))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def test_a_run_learns_and_leaves_everything_it_promises(teacher_run: Path, tiny_store: Store) -> None:
    result = json.loads((teacher_run / "result.json").read_text())
    assert result["top1"] > 0.9  # four well separated colours; chance is 0.25
    assert result["val_samples"] == 32
    assert result["samples_seen"] == 6 * 96
    assert len(result["epoch_seconds"]) == 6
    assert result["bytes_read"] == result["payload_bytes"] == 6 * 96 * 12 * 12 * 3
    ledger = result["ledger"]
    assert ledger["wall_seconds"] == pytest.approx(sum(ledger["seconds"].values()))
    assert result["train_seconds"] == pytest.approx(ledger["seconds"]["step"] + ledger["seconds"]["data_wait"])
    lines = [json.loads(line) for line in (teacher_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "epoch"] == [6, 12, 18, 24, 30, 36]
    assert lines[-1]["val_top1"] == result["top1"]
    assert list((teacher_run / "tensorboard").iterdir())
    model, card = load_trained(teacher_run / "model.safetensors")
    assert card.classes == tiny_store.classes
    assert not model.training


def test_the_student_on_a_subset_with_a_teacher(tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path) -> None:
    subset = select(tiny_store, policy="random", keep=0.5, seed=1)
    spec = RunSpec(store=tiny_store, recipe=recipe(), out=tmp_path / "run", subset=subset, teacher=teacher)
    seen: list[int] = []
    trainer = Trainer(spec, WORLD)
    step = trainer.learner.step
    trainer.learner.step = lambda batch, *rest: (seen.extend(batch.ids.tolist()), step(batch, *rest))  # type: ignore
    result = trainer.fit()
    assert set(seen) <= set(subset.ids.tolist())
    assert len(seen) == 2 * 48 == result["samples_seen"]
    assert result["keep"] == 0.5
    assert result["alpha"] == pytest.approx(spec.objective_settings()[0].alpha)


def test_one_step_is_the_step_torch_would_take(tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path) -> None:
    """One SGD step on one batch, against the formula with torch's own losses and optimizer."""
    settings = recipe("epochs=1", "batch_size=96", "distill.alpha=0.7", "distill.temperature=2", "schedule.warmup=0")
    spec = RunSpec(store=tiny_store, recipe=settings, out=tmp_path / "run", teacher=teacher)
    trainer = Trainer(spec, WORLD)
    model = load_trained_copy(trainer)
    batch = next(iter(trainer._batches(trainer._plan())))
    pixels = batch.images.float() / 255
    inputs = (pixels - 0.5) / 0.5
    targets = teacher(batch.images).float()
    student = model(inputs)
    ce = torch.nn.functional.cross_entropy(student, batch.labels)
    log_p, p_t = torch.log_softmax(student / 2, 1), torch.softmax(targets / 2, 1)
    loss = 0.3 * ce + 0.7 * 4 * torch.nn.functional.kl_div(log_p, p_t, reduction="batchmean")
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    loss.backward()
    optimizer.step()
    trainer.learner.step(batch, 0, 0.1, 0)
    for (name, expected), got in zip(model.named_parameters(), trainer.learner.model.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6, msg=name)
    trainer.close()


def load_trained_copy(trainer: Trainer) -> torch.nn.Module:
    import copy

    return copy.deepcopy(trainer.learner.model).train()


def test_a_run_folder_is_not_reused_by_accident(tiny_store: Store, tmp_path: Path) -> None:
    spec = RunSpec(store=tiny_store, recipe=recipe(), out=tmp_path / "run")
    Trainer(spec, WORLD).close()
    with pytest.raises(ValueError, match="holds a run already"):
        Trainer(spec, WORLD)
    other = RunSpec(store=tiny_store, recipe=recipe("optimizer.lr=0.3"), out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"recipe\.optimizer\.lr = 0\.1, not 0\.3"):
        Trainer(other, WORLD, resume="auto")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(ValueError, match="not empty"):
        Trainer(RunSpec(store=tiny_store, recipe=recipe(), out=tmp_path / "full"), WORLD)


def test_a_batch_larger_than_the_subset_is_an_error_with_the_remedy(tiny_store: Store, tmp_path: Path) -> None:
    subset = select(tiny_store, policy="random", keep=0.1)
    spec = RunSpec(store=tiny_store, recipe=recipe(), out=tmp_path / "run", subset=subset)
    with pytest.raises(ValueError, match=r"batch_size 16 is larger than the 10 samples kept.*batch_size="):
        Trainer(spec, WORLD)


def test_evaluation_interval_grows_as_less_is_kept(tiny_store: Store, tmp_path: Path) -> None:
    subset = select(tiny_store, policy="random", keep=0.25)
    fine = recipe("eval.every_epochs=1", "epochs=9")
    trainer = Trainer(RunSpec(store=tiny_store, recipe=fine, out=tmp_path / "run", subset=subset), WORLD)
    trainer.fit()
    assert [r["epoch"] for r in trainer.epochs if "val_top1" in r] == [3, 7, 8]


def test_no_tensor_is_read_on_the_host_between_log_intervals(
    tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(store=tiny_store, recipe=recipe("log_every=1000"), out=tmp_path / "run", teacher=teacher)
    trainer = Trainer(spec, WORLD)
    trainer.train_epoch()
    batches = [b._replace(images=b.images.clone()) for b in trainer._batches(trainer._plan())]
    reads: list[str] = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *args: object, _name: str = name, _original: object = original) -> object:
            if self.is_floating_point():  # labels may be range-checked: on a CPU they are on the host anyway
                reads.append(_name)
            return _original(self, *args)  # type: ignore[operator]

        monkeypatch.setattr(torch.Tensor, name, counted)
    for number, batch in enumerate(batches):
        trainer.learner.step(batch, number, 0.1, 0)
    assert reads == []
    trainer._read_metrics()
    assert "tolist" in reads  # the counter does see a read
    trainer.close()


def test_the_precisions_train(tiny_store: Store, tmp_path: Path) -> None:
    for precision in ("bf16", "fp16"):
        settings = replace(recipe("epochs=3"), precision=precision)
        result = Trainer(RunSpec(store=tiny_store, recipe=settings, out=tmp_path / precision), WORLD).fit()
        assert result["top1"] > 0.6, precision


def test_reshaping_without_a_teacher_and_a_foreign_subset_are_refused(tiny_store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a teacher too"):
        RunSpec(store=tiny_store, recipe=recipe(), out=tmp_path, class_scale=torch.ones(4))
    subset = select(tiny_store, policy="random", keep=0.5)
    foreign = replace(subset, info={**subset.info, "fingerprint": "0" * 64})
    with pytest.raises(ValueError, match="was made for"):
        RunSpec(store=tiny_store, recipe=recipe(), out=tmp_path, subset=foreign)


def test_teacher_info_is_kept(tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path) -> None:
    spec = RunSpec(store=tiny_store, recipe=recipe(), out=tmp_path / "run", teacher=teacher)
    started = time.time()
    Trainer(spec, WORLD).close()
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert run["teacher"] == teacher.describe()
    assert run["teacher"]["model"] == "cifar_resnet8"
    assert run["store"]["fingerprint"] == tiny_store.fingerprint
    assert (tmp_path / "run/run.json").stat().st_mtime >= started - 1


def test_a_run_has_its_own_random_stream(tiny_store: Store, tmp_path: Path) -> None:
    """Dropout draws alike whatever happens around the run, and the program's generator is left as it was."""
    settings = recipe("model.name=test_convnext", "model.drop_path=0.5", "train_view.size=32", "eval_view.size=32")
    alone = Trainer(RunSpec(store=tiny_store, recipe=settings, out=tmp_path / "alone"), WORLD)
    alone.fit()
    before = torch.get_rng_state()
    turns = [Trainer(RunSpec(store=tiny_store, recipe=settings, out=tmp_path / n), WORLD) for n in ("a", "b")]
    for _ in range(2):
        for trainer in turns:
            trainer.train_epoch()
    assert torch.equal(torch.get_rng_state(), before)
    for trainer in turns:
        trainer.finish()
        for name, tensor in trainer.learner.model.state_dict().items():
            assert torch.equal(tensor, alone.learner.model.state_dict()[name]), name


@pytest.mark.parametrize("objective", ["dkd", "dist", "standardize", "hard"])
def test_every_objective_trains(tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path, objective: str) -> None:
    settings = recipe("epochs=6", "optimizer.lr=0.03", f"distill.objective={objective}")
    spec = RunSpec(store=tiny_store, recipe=settings, out=tmp_path / "run", teacher=teacher)
    assert Trainer(spec, WORLD).fit()["top1"] > 0.6


def test_a_wrong_objective_is_named_before_anything_starts(
    tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path
) -> None:
    for override, message in [
        ("distill.objective=dkt", "unknown objective 'dkt'.*did you mean 'dkd'"),
        ("distill.objective=reshape", "needs the teacher's class statistics"),
        ("distill.options.residual=never", "residual is 'never'"),
        ("distill.options.beta=1", "unknown option"),
    ]:
        with pytest.raises(ValueError, match=message):
            RunSpec(store=tiny_store, recipe=recipe(override), out=tmp_path / "run", teacher=teacher)
    assert not (tmp_path / "run").exists()


def test_mixed_images_have_no_cached_labels_and_no_dynamics(tiny_store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belong to no sample"):
        RunSpec(store=tiny_store, recipe=recipe("mix.mixup=0.2", "track=[aum]"), out=tmp_path)


@pytest.mark.parametrize(("keep", "override"), [(1.0, "budget.steps=9"), (0.5, "budget.samples=150")])
def test_a_budget_in_steps_or_samples_ends_a_run_whatever_is_kept(
    tiny_store: Store, tmp_path: Path, keep: float, override: str
) -> None:
    subset = select(tiny_store, policy="random", keep=keep)
    trainer = Trainer(RunSpec(store=tiny_store, recipe=recipe(override), out=tmp_path / "run", subset=subset), WORLD)
    rates: list[float] = []
    step = trainer.learner.step
    trainer.learner.step = lambda b, n, rate, v: (rates.append(rate), step(b, n, rate, v))  # type: ignore
    result = trainer.fit()
    assert trainer.global_step == len(rates) == 9
    assert result["samples_seen"] == 9 * 16
    assert rates[-1] < 0.1 * max(rates)  # the schedule ends where the budget does


def test_accumulation_changes_memory_not_the_step(tiny_store: Store, tmp_path: Path) -> None:
    """Without batch norm, a batch in four parts gives the gradient of the whole."""
    settings = ["model.name=test_convnext", "train_view.size=32", "eval_view.size=32", "epochs=1", "optimizer.lr=0.01"]
    states = []
    for parts in (1, 4):
        out = tmp_path / f"{parts}"
        trainer = Trainer(RunSpec(store=tiny_store, recipe=recipe(*settings, f"accumulate={parts}"), out=out), WORLD)
        trainer.fit()
        states.append(trainer.learner.model.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_clipping_bounds_the_step(tiny_store: Store, tmp_path: Path) -> None:
    settings = recipe("clip_norm=0.01", "optimizer.weight_decay=0", "optimizer.momentum=0", "schedule.name=constant")
    trainer = Trainer(RunSpec(store=tiny_store, recipe=settings, out=tmp_path / "run"), WORLD)
    before = [p.detach().clone() for p in trainer.learner.model.parameters()]
    trainer.learner.step(next(iter(trainer._batches(trainer._plan()))), 0, 1.0, 0)
    moved = [(p - q).norm() for p, q in zip(trainer.learner.model.parameters(), before, strict=True)]
    assert torch.stack(moved).norm().item() == pytest.approx(0.01, rel=1e-3)
    trainer.close()


def test_progressive_views_grow(tiny_store: Store, tmp_path: Path) -> None:
    settings = recipe("epochs=4", "progressive={start: 8, multiple: 2, ramp: [0.2, 0.6]}")
    trainer = Trainer(RunSpec(store=tiny_store, recipe=settings, out=tmp_path / "run"), WORLD)
    sizes: list[int] = []
    step = trainer.learner.step
    trainer.learner.step = lambda b, *rest: (sizes.append(b.images.shape[-1]), step(b, *rest))  # type: ignore
    trainer.fit()
    assert sizes[::6] == [8, 8, 12, 12]  # epoch 1 lies at 0.25, an eighth of the ramp: 8.5, rounded to 8
    assert trainer.course.size(1) == 8


def test_the_average_is_what_is_evaluated_and_saved(tiny_store: Store, tmp_path: Path) -> None:
    trainer = Trainer(RunSpec(store=tiny_store, recipe=recipe("ema.decay=0.99"), out=tmp_path / "run"), WORLD)
    trainer.fit()
    assert trainer.learner.ema is not None
    saved, average = weights(tmp_path / "run"), trainer.learner.ema.state_dict()
    assert all(torch.equal(saved[name], average[name]) for name in saved)
    assert not all(torch.equal(saved[n], t) for n, t in trainer.learner.model.state_dict().items())


@pytest.mark.slow
def test_a_compiled_student_trains_as_an_eager_one(tiny_store: Store, tmp_path: Path, told: list[str]) -> None:
    states = {}
    for compiled in (False, True):
        settings = recipe(f"compile={str(compiled).lower()}", "epochs=1", "optimizer.lr=0.01")
        spec = RunSpec(store=tiny_store, recipe=settings, out=tmp_path / str(compiled))
        trainer = Trainer(spec, WORLD)
        trainer.fit()
        states[compiled] = trainer.learner.model.state_dict()
    assert "the student is compiled" in told
    assert "compile" in trainer.ledger.seconds
    for name, tensor in states[False].items():
        torch.testing.assert_close(states[True][name], tensor, rtol=1e-2, atol=1e-4, msg=name)


def test_a_student_that_does_not_compile_trains_all_the_same_and_says_so(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    def broken(model: torch.nn.Module, **_: object) -> torch.nn.Module:
        class Broken(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                raise RuntimeError("no C++ compiler")

        return Broken()

    monkeypatch.setattr(torch, "compile", broken)
    spec = RunSpec(store=tiny_store, recipe=recipe("compile=true"), out=tmp_path / "run")
    Trainer(spec, WORLD).fit()
    assert any("not compiled: RuntimeError: no C++ compiler" in line for line in told)


def test_tracked_scores_are_those_of_the_outputs_seen(tiny_store: Store, tmp_path: Path) -> None:
    """AUM and forgetting of a run, against the logits its own steps produced, recomputed outside."""
    settings = recipe("epochs=4", "track=[aum, forgetting]")
    trainer = Trainer(RunSpec(store=tiny_store, recipe=settings, out=tmp_path / "run"), WORLD)
    margins: dict[int, list[float]] = {int(i): [] for i in tiny_store.split("train").ids}
    objective = trainer.learner.objective

    def watched(student, teacher, labels, weights, stats=False):  # type: ignore[no-untyped-def]
        own = student.detach().gather(1, labels[:, None])[:, 0]
        others = student.detach().scatter(1, labels[:, None], -torch.inf).amax(1)
        batch_margins.append((own - others).tolist())
        return objective(student, teacher, labels, weights, stats=stats)

    batch_margins: list[list[float]] = []
    watched.needs_teacher = False  # type: ignore[attr-defined]
    trainer.learner.objective = watched  # type: ignore[assignment]
    step = trainer.learner.step

    def remember(batch, *rest):  # type: ignore[no-untyped-def]
        step(batch, *rest)
        for sample, margin in zip(batch.ids.tolist(), batch_margins[-1], strict=True):
            margins[sample].append(margin)

    trainer.learner.step = remember  # type: ignore[method-assign]
    trainer.fit()
    scores = read_scores(tmp_path / "run/scores.parquet")
    scores.check(tiny_store)
    for sample, seen in margins.items():
        row = int(np.searchsorted(scores.ids, sample))
        assert len(seen) == 4
        assert scores.columns["aum"][row] == pytest.approx(np.mean(seen), abs=1e-5)
        right = [margin > 0 for margin in seen]
        events = sum(a and not b for a, b in itertools.pairwise(right))
        assert scores.columns["forgetting"][row] == (events if any(right) else np.inf)


def test_infobatch_weighs_and_leaves_out(tiny_store: Store, tmp_path: Path) -> None:
    settings = recipe("epochs=8", "dynamic.policy=infobatch")
    trainer = Trainer(RunSpec(store=tiny_store, recipe=settings, out=tmp_path / "run"), WORLD)
    kept: list[set[float]] = []
    step = trainer.learner.step

    def remember(batch, *rest):  # type: ignore[no-untyped-def]
        kept[-1].update([1.0] if batch.weights is None else batch.weights.tolist())
        step(batch, *rest)

    trainer.learner.step = remember  # type: ignore[method-assign]
    while not trainer.finished:
        kept.append(set())
        trainer.train_epoch()
    trainer.finish()
    samples = [record["samples"] for record in trainer.epochs]
    assert samples[0] == samples[7] == 96  # nothing is known yet; then the last eighth of the run sees all
    assert all(48 <= count < 96 for count in samples[1:7])
    assert kept[0] == kept[7] == {1.0}
    assert all(weights <= {1.0, 2.0} and 2.0 in weights for weights in kept[1:7])


def test_cached_labels_train_as_their_teacher_does(
    tiny_store: Store, teacher: OnlineTeacher, teacher_run: Path, tmp_path: Path
) -> None:
    """Full logits of as many views as epochs are the online teacher's, but for the rounding to float16."""
    settings = recipe("epochs=3", "optimizer.lr=0.001")
    labels = LabelSpec(store=tiny_store, teacher=teacher, recipe=settings, views=3)
    make_labels(labels, WORLD, tmp_path / "labels")
    cached = CachedTeacher.open(tmp_path / "labels", tiny_store, view=settings.train_view, seed=settings.seed)
    losses = []
    for name, source in (("online", {"teacher": teacher}), ("cached", {"cached": cached})):
        spec = RunSpec(store=tiny_store, recipe=settings, out=tmp_path / name, **source)
        trainer = Trainer(spec, WORLD)
        result = trainer.fit()
        assert result["alpha"] is not None
        losses.append([record["loss"] for record in trainer.epochs])
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_the_teacher_is_measured_on_images_of_the_runs_last_size(
    tiny_store: Store, teacher: OnlineTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[torch.Tensor, int]] = []
    monkeypatch.setattr(teacher, "prepare", lambda images, forwards: asked.append((images, forwards)))
    growing = recipe("accumulate=2", "progressive.start=8", "progressive.multiple=4", "progressive.ramp=[0.1,0.4]")
    trainer = Trainer(RunSpec(store=tiny_store, recipe=growing, out=tmp_path / "run", teacher=teacher), WORLD)
    result = trainer.fit()
    ((images, forwards),) = asked
    assert images.shape == (8, 3, 12, 12)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert forwards == 2 * 6 * 2
    assert result["bytes_read"] == result["payload_bytes"]  # the measurement's images are not the training's
    assert result["ledger"]["seconds"]["compile"] > 0


def test_corrupt_samples_are_counted_by_epoch_and_in_the_result(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for k in range(24):
        coarse = Image.fromarray(rng.integers(0, 256, size=(4, 4, 3), dtype=np.uint8))
        path = tmp_path / "source/train" / f"class{k // 12}" / f"{k:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((20, 20), Image.Resampling.BICUBIC).save(path)
    store = convert(open_source(tmp_path / "source"), tmp_path / "store", ConvertSettings())
    split = store.split("train")
    with (store.path / "train.beton").open("r+b") as file:
        for row in (3, 17):
            file.seek(int(split.pointers[row]) + 20)
            file.write(bytes(int(split.sizes[row]) - 20))
    for on_error, lost in (("replace", {"replaced": 2, "skipped": 0}), ("skip", {"replaced": 0, "skipped": 2})):
        settings = recipe("batch_size=12")
        spec = RunSpec(store=store, recipe=settings, out=tmp_path / on_error, on_error=on_error)
        trainer = Trainer(spec, WORLD)
        result = trainer.fit()
        assert [{name: record[name] for name in lost} for record in trainer.epochs] == [lost, lost]
        assert {name: result[name] for name in lost} == {name: 2 * count for name, count in lost.items()}
        assert result["samples_seen"] == 2 * (24 - lost["skipped"])
    trainer = Trainer(RunSpec(store=store, recipe=recipe("batch_size=12"), out=tmp_path / "raise"), WORLD)
    with pytest.raises(ValueError, match=r"sample (3|17) .* cannot be decoded"):
        trainer.fit()
