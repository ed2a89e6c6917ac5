"""Recipes: every setting of a training run, from YAML, checked, with typos named.

A recipe is a tree of frozen dataclasses; `--set optimizer.lr=0.1` addresses its leaves by dotted key.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from prunekd.input.views import ViewSettings
from prunekd.models.trained import IMAGENET_MEAN, IMAGENET_STD

T = TypeVar("T")
PRECISIONS = ("fp32", "bf16", "fp16")


def _check(condition: bool, key: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{key} is {value!r}; it must be {allowed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The student: a name `prunekd.models.create_model` knows, and its stochastic depth rate."""

    name: str
    drop_path: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """`sgd` (momentum, nesterov) or `adamw` (betas); `decay_norms` also decays norm weights and biases."""

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    betas: tuple[float, ...] = (0.9, 0.999)
    decay_norms: bool = False

    def __post_init__(self) -> None:
        _check(self.name in ("sgd", "adamw"), "optimizer.name", self.name, "sgd or adamw")
        _check(self.lr > 0, "optimizer.lr", self.lr, "positive")
        _check(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "in [0, 1)")
        _check(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        _check(len(self.betas) == 2, "optimizer.betas", self.betas, "two numbers")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """Learning rate over a run: linear warm-up, then `cosine`, `step` or `constant`.

    warmup and milestones are fractions of the run in [0, 1], so a shorter run has the same shape; floor is the
    last learning rate as a fraction of the peak (cosine); gamma multiplies at each milestone (step).
    """

    name: str = "cosine"
    warmup: float = 0.05
    floor: float = 0.0
    milestones: tuple[float, ...] = (0.625, 0.75, 0.875)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _check(self.name in ("cosine", "step", "constant"), "schedule.name", self.name, "cosine, step or constant")
        _check(0 <= self.warmup < 1, "schedule.warmup", self.warmup, "a fraction of the run in [0, 1)")
        in_run = all(0 < m < 1 for m in self.milestones) and list(self.milestones) == sorted(self.milestones)
        _check(in_run, "schedule.milestones", self.milestones, "rising fractions of the run in (0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSettings:
    """Weight and temperature of the teacher's term; alpha `auto` follows the keep ratio (prunekd.distill.alpha)."""

    alpha: float | str = "auto"
    temperature: float = 4.0

    def __post_init__(self) -> None:
        ok = self.alpha == "auto" if isinstance(self.alpha, str) else 0 <= self.alpha <= 1
        _check(ok, "distill.alpha", self.alpha, "auto or a number in [0, 1]")
        _check(self.temperature > 0, "distill.temperature", self.temperature, "positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings:
    """When to evaluate. With `scale` the interval grows as 1/keep, so evaluation shrinks with the run it judges."""

    every_epochs: int = 1
    batch_size: int = 256
    scale: bool = True

    def __post_init__(self) -> None:
        _check(self.every_epochs >= 1, "eval.every_epochs", self.every_epochs, "1 or more")
        _check(self.batch_size >= 1, "eval.batch_size", self.batch_size, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSettings:
    """When to checkpoint: every N steps (0: not by steps), every M minutes, and how many to keep."""

    every_steps: int = 0
    every_minutes: float = 10.0
    keep_last: int = 2

    def __post_init__(self) -> None:
        _check(self.every_steps >= 0, "checkpoint.every_steps", self.every_steps, "0 or more")
        _check(self.every_minutes > 0, "checkpoint.every_minutes", self.every_minutes, "positive")
        _check(self.keep_last >= 1, "checkpoint.keep_last", self.keep_last, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All settings of a run. `batch_size` is global (over all ranks); mean and std are in [0, 1] pixel units."""

    model: ModelSettings
    train_view: ViewSettings
    eval_view: ViewSettings
    epochs: int = 100
    batch_size: int = 128
    seed: int = 0
    precision: str = "bf16"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    label_smoothing: float = 0.0
    log_every: int = 20
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")
        _check(self.precision in PRECISIONS, "precision", self.precision, " or ".join(PRECISIONS))
        _check(len(self.mean) == 3 and len(self.std) == 3, "mean and std", (self.mean, self.std), "three numbers each")
        _check(all(s > 0 for s in self.std), "std", self.std, "positive")
        _check(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "in [0, 1)")
        _check(self.log_every >= 1, "log_every", self.log_every, "1 or more")

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain values (tuples as lists), which `load_recipe` reads back."""
        plain = dataclasses.asdict(self)
        result = yaml.safe_load(yaml.safe_dump(_lists(plain)))
        assert isinstance(result, dict)
        return result


def recipe_names() -> list[str]:
    """Names of the recipes that come with prunekd."""
    folder = resources.files("prunekd") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe by name or from a YAML file and apply `key=value` overrides with dotted keys.

    Raises:
        ValueError: no such recipe, unknown key (with the nearest match), wrong type or value out of range.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.exists():
            raise ValueError(f"recipe {path} does not exist")
        text = path.read_text()
    elif name_or_path in recipe_names():
        text = (resources.files("prunekd") / "recipes" / f"{name_or_path}.yaml").read_text()
    else:
        raise ValueError(f"unknown recipe {name_or_path!r}; give a .yaml file or one of: {', '.join(recipe_names())}")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {name_or_path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"recipe {name_or_path} must be a mapping of settings, not {type(tree).__name__}")
    for override in overrides:
        _override(tree, override)
    return build(Recipe, tree)


def build(cls: type[T], tree: Mapping[str, Any], prefix: str = "") -> T:
    """Build a settings dataclass from plain values, checking names and types; `prefix` is its dotted key."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in tree.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(fields)}"
            raise ValueError(f"unknown setting {prefix}{key}{hint}")
        values[key] = _convert(value, hints[key], f"{prefix}{key}")
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    missing = [f"{prefix}{name}" for name in required if name not in values]
    if missing:
        raise ValueError(f"missing setting{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return cls(**values)


def _convert(value: Any, hint: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{key} is {value!r}; it must be a mapping of settings")
        return build(typing.cast(type[Any], hint), value, f"{key}.")
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        for option in sorted(options, key=lambda o: o is str):  # str takes everything, so it comes last
            try:
                return _convert(value, option, key)
            except ValueError:
                continue
        raise ValueError(f"{key} is {value!r}; it must be {' or '.join(_type_name(o) for o in options)}")
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{key} is {value!r}; it must be a list")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(item, inner, key) for item in value)
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 5e-4 as a string
        except ValueError:
            pass
    elif value is None and hint is type(None):
        return None
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{key} is {value!r}; it must be {_type_name(hint)}")


def _type_name(hint: Any) -> str:
    names = {float: "a number", int: "an integer", bool: "true or false", str: "a name", type(None): "null"}
    return names.get(hint, str(hint))


def _override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ValueError(f"--set {override!r}: write it as key=value, for example optimizer.lr=0.05")
    parts = key.split(".")
    node = tree
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise ValueError(f"--set {override!r}: {part} holds no further settings")
        node = child
    node[parts[-1]] = yaml.safe_load(text)


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value
