"""Recipes, schedules and optimizers."""

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from prunekd.training.optim import apex_problem, create_optimizer
from prunekd.training.recipe import build, load_recipe, recipe_names
from prunekd.training.schedule import learning_rate, resolution
from prunekd.training.settings import OptimizerSettings, ProgressiveSettings, Recipe, ScheduleSettings


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_resolves_and_reads_back_what_it_wrote(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert build(Recipe, recipe.to_dict()) == recipe
    (tmp_path / "copy.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
    assert load_recipe(str(tmp_path / "copy.yaml")) == recipe


def test_overrides_reach_the_leaves() -> None:
    recipe = load_recipe("demo", ["optimizer.lr=0.5", "epochs=3", "distill.alpha=0.25", "train_view.scale=[0.5, 1]"])
    assert recipe.optimizer.lr == 0.5
    assert recipe.epochs == 3
    assert recipe.distill.alpha == 0.25
    assert recipe.train_view.scale == (0.5, 1.0)
    assert load_recipe("demo", ["optimizer.weight_decay=5e-4"]).optimizer.weight_decay == 5e-4  # YAML 1.1 says string


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", "unknown setting epoch; did you mean epochs"),
        ("optimizer.weightdecay=0", r"did you mean optimizer\.weight_decay"),
        ("epochs=many", "epochs is 'many'; it must be an integer"),
        ("epochs=2.5", "epochs is 2.5"),
        ("epochs=true", "epochs is True"),
        ("epochs=0", "epochs is 0"),
        ("precision=fp8", "precision is 'fp8'"),
        ("optimizer=sgd", "optimizer is 'sgd'; it must be a mapping"),
        ("distill.alpha=often", "distill.alpha is 'often'"),
        ("schedule.milestones=[0.9, 0.5]", "rising fractions"),
        ("train_view.kind=zoom", "view kind is 'zoom'"),
        ("mean=[1, 2]", "three numbers"),
        ("model.name.x=1", "holds no further settings"),
        ("optimizer.lr", "write it as key=value"),
        ("optimizer.name=lars", "it must be sgd or adamw or lamb"),
        ("distill.options=3", r"distill\.options is 3; it must be a mapping"),
        ("accumulate=3", "accumulate is 3; it must be a divisor of 32"),
        ("clip_norm=-1", "clip_norm is -1"),
        ("ema.decay=1", r"ema\.decay is 1"),
        ("mix.mixup=-0.2", r"mix\.mixup is -0\.2"),
        ("mix.probability=2", r"mix\.probability is 2"),
        ("budget.steps=-1", r"budget\.steps is -1"),
        ("budget={steps: 3, samples: 3}", "steps or samples, not both"),
        ("progressive.start=64", "progressive.start 64 exceeds train_view.size 16"),
        ("progressive.ramp=[0.9, 0.1]", "two rising fractions"),
    ],
)
def test_wrong_settings_are_named(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("demo", [override])


def test_missing_recipes_and_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of: .*demo"):
        load_recipe("nothing")
    with pytest.raises(ValueError, match=r"no\.yaml does not exist"):
        load_recipe(str(tmp_path / "no.yaml"))
    (tmp_path / "part.yaml").write_text("epochs: 3\n")
    with pytest.raises(ValueError, match="missing settings model, train_view, eval_view"):
        load_recipe(str(tmp_path / "part.yaml"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="must be a mapping"):
        load_recipe(str(tmp_path / "list.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_recipe(str(tmp_path / "bad.yaml"))


def torch_rates(scheduler_of: object, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = scheduler_of(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_and_step_are_torchs() -> None:
    cosine = ScheduleSettings(name="cosine", warmup=0.0, floor=0.1)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50, eta_min=0.04), 50)
    assert [learning_rate(cosine, 0.4, step, 50) for step in range(50)] == pytest.approx(expected)
    steps = ScheduleSettings(name="step", warmup=0.0, milestones=(0.5, 0.8), gamma=0.1)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [25, 40], 0.1), 50)
    assert [learning_rate(steps, 0.4, step, 50) for step in range(50)] == pytest.approx(expected)


def test_linear_is_torchs() -> None:
    linear = ScheduleSettings(name="linear", warmup=0.0, floor=0.25)
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.25, total_iters=50), 50)
    assert [learning_rate(linear, 0.4, step, 50) for step in range(50)] == pytest.approx(expected)


def test_resolution_grows_between_the_ramps_ends() -> None:
    settings = ProgressiveSettings(start=128, ramp=(0.25, 0.75), multiple=32)
    sizes = [resolution(settings, 224, done / 100) for done in range(101)]
    assert sizes == sorted(sizes)
    assert set(sizes) == {128, 160, 192, 224}
    assert set(sizes[:26]) == {128}
    assert set(sizes[75:]) == {224}
    assert sizes[50] == 192  # 128 + half of 96 = 176, rounded to a multiple of 32 (halves to even)
    assert resolution(ProgressiveSettings(), 200, 0.0) == 200


def test_warm_up_rises_to_the_peak_and_scales_with_the_run() -> None:
    settings = ScheduleSettings(name="constant", warmup=0.1)
    rates = [learning_rate(settings, 1.0, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (k + 1) for k in range(10)])
    assert set(rates[9:]) == {1.0}
    assert [learning_rate(settings, 1.0, step, 10) for step in range(3)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
@pytest.mark.parametrize("decay_norms", [False, True])
def test_weight_decay_spares_norms_and_biases_unless_told(name: str, decay_norms: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    settings = OptimizerSettings(name=name, weight_decay=0.3, decay_norms=decay_norms)
    optimizer = create_optimizer(model, settings)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for parameter in model.parameters():
        assert decay[id(parameter)] == (0.3 if decay_norms or parameter.ndim > 1 else 0.0)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_recipe("demo").epochs = 5  # type: ignore[misc]


def test_apex_is_used_only_if_it_is_nvidias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three situations made with packages on the path: none, PyPI's namesake, NVIDIA's without its extensions."""
    model = nn.Linear(2, 2)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(ValueError, match=r"NVIDIA Apex is not installed; .*Or use sgd"):
        create_optimizer(model, OptimizerSettings(name="apex_sgd"))
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex/__init__.py").touch()
    with pytest.raises(ValueError, match=r"is PyPI's, another project.*Or use lamb"):
        create_optimizer(model, OptimizerSettings(name="apex_lamb"))
    (tmp_path / "apex/optimizers").mkdir()
    (tmp_path / "apex/optimizers/__init__.py").touch()
    assert "without its compiled extensions" in str(apex_problem())
    (tmp_path / "amp_C.py").touch()
    assert apex_problem() is None
