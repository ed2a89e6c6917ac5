"""Every setting of a training run, as a tree of frozen dataclasses that check their values."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import yaml

from prunekd.common.pixels import IMAGENET_MEAN, IMAGENET_STD
from prunekd.input.views import ViewSettings

PRECISIONS = ("fp32", "bf16", "fp16")
OPTIMIZERS = ("sgd", "adamw", "lamb", "apex_sgd", "apex_lamb")


def check(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise ValueError naming the setting, its value and what is allowed, unless `condition` holds."""
    if not condition:
        raise ValueError(f"{key} is {value!r}; it must be {allowed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The student: a name `prunekd.models.create_model` knows, and its stochastic depth rate.

    checkpoint_activations recomputes activations in the backward pass (timm models): less memory, about a third more
    time. sync_batch_norm takes batch statistics over all processes (GPUs only).
    """

    name: str
    drop_path: float = 0.0
    checkpoint_activations: bool = False
    sync_batch_norm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """`sgd` (momentum, nesterov), `adamw` or `lamb` (betas); `apex_sgd` and `apex_lamb` are NVIDIA Apex's fused ones.

    decay_norms also decays norm weights and biases.
    """

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    betas: tuple[float, ...] = (0.9, 0.999)
    decay_norms: bool = False

    def __post_init__(self) -> None:
        check(self.name in OPTIMIZERS, "optimizer.name", self.name, " or ".join(OPTIMIZERS))
        check(self.lr > 0, "optimizer.lr", self.lr, "positive")
        check(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "in [0, 1)")
        check(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        check(len(self.betas) == 2, "optimizer.betas", self.betas, "two numbers")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """Learning rate over a run: linear warm-up, then `cosine`, `linear`, `step` or `constant`.

    warmup and milestones are fractions of the run in [0, 1], so a shorter run has the same shape; floor is the
    last learning rate as a fraction of the peak (cosine, linear); gamma multiplies at each milestone (step).
    """

    name: str = "cosine"
    warmup: float = 0.05
    floor: float = 0.0
    milestones: tuple[float, ...] = (0.625, 0.75, 0.875)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        names = ("cosine", "linear", "step", "constant")
        check(self.name in names, "schedule.name", self.name, " or ".join(names))
        check(0 <= self.warmup < 1, "schedule.warmup", self.warmup, "a fraction of the run in [0, 1)")
        in_run = all(0 < m < 1 for m in self.milestones) and list(self.milestones) == sorted(self.milestones)
        check(in_run, "schedule.milestones", self.milestones, "rising fractions of the run in (0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSettings:
    """The objective of a run with a teacher, a name in prunekd.distill.OBJECTIVES, and its settings.

    alpha `auto` follows the keep ratio (prunekd.distill.alpha); options are the objective's own, by name.
    """

    objective: str = "kd"
    alpha: float | str = "auto"
    temperature: float = 4.0
    options: dict[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ok = self.alpha == "auto" if isinstance(self.alpha, str) else 0 <= self.alpha <= 1
        check(ok, "distill.alpha", self.alpha, "auto or a number in [0, 1]")
        check(self.temperature > 0, "distill.temperature", self.temperature, "positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings:
    """When to evaluate. With `scale` the interval grows as 1/keep, so evaluation shrinks with the run it judges."""

    every_epochs: int = 1
    batch_size: int = 256
    scale: bool = True

    def __post_init__(self) -> None:
        check(self.every_epochs >= 1, "eval.every_epochs", self.every_epochs, "1 or more")
        check(self.batch_size >= 1, "eval.batch_size", self.batch_size, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSettings:
    """When to checkpoint: every N steps (0: not by steps), every M minutes, and how many to keep.

    keep_best writes the weights of the best evaluation so far to best.safetensors.
    """

    every_steps: int = 0
    every_minutes: float = 10.0
    keep_last: int = 2
    keep_best: bool = False

    def __post_init__(self) -> None:
        check(self.every_steps >= 0, "checkpoint.every_steps", self.every_steps, "0 or more")
        check(self.every_minutes > 0, "checkpoint.every_minutes", self.every_minutes, "positive")
        check(self.keep_last >= 1, "checkpoint.keep_last", self.keep_last, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """The length of a run in optimizer `steps` or in `samples` seen, whatever is kept; 0 leaves it to `epochs`."""

    steps: int = 0
    samples: int = 0

    def __post_init__(self) -> None:
        check(self.steps >= 0, "budget.steps", self.steps, "0 or more")
        check(self.samples >= 0, "budget.samples", self.samples, "0 or more")
        check(not (self.steps and self.samples), "budget", (self.steps, self.samples), "steps or samples, not both")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmaSettings:
    """An exponential moving average of the weights, which is then what is evaluated and saved; decay 0: none."""

    decay: float = 0.0

    def __post_init__(self) -> None:
        check(0 <= self.decay < 1, "ema.decay", self.decay, "in [0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MixSettings:
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a batch with its mirror image in batch order.

    mixup, cutmix: parameter of the Beta distribution, 0 for off; with both on, `switch` is the share of CutMix.
    probability: share of batches that are mixed.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            check(getattr(self, name) >= 0, f"mix.{name}", getattr(self, name), "0 or more")
        for name in ("probability", "switch"):
            check(0 <= getattr(self, name) <= 1, f"mix.{name}", getattr(self, name), "in [0, 1]")

    @property
    def on(self) -> bool:
        """True if batches are mixed at all."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressiveSettings:
    """Training resolution that grows from `start` pixels to the training view's size (0: constant).

    ramp: fractions of the run at which it begins and ends to grow; sizes are rounded to `multiple` pixels.
    """

    start: int = 0
    ramp: tuple[float, ...] = (0.3, 0.8)
    multiple: int = 32

    def __post_init__(self) -> None:
        check(self.start >= 0, "progressive.start", self.start, "0 or more")
        ordered = len(self.ramp) == 2 and 0 <= self.ramp[0] <= self.ramp[1] <= 1
        check(ordered, "progressive.ramp", self.ramp, "two rising fractions of the run in [0, 1]")
        check(self.multiple >= 1, "progressive.multiple", self.multiple, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicSettings:
    """A policy that selects anew in every epoch, by its name in DYNAMIC_POLICIES (empty: none), and its parameters."""

    policy: str = ""
    parameters: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All settings of a run.

    batch_size is global: samples per optimizer step over all processes, taken in `accumulate` parts. mean and std are
    in [0, 1] pixel units. clip_norm bounds the gradient's norm (0: not). track names training-dynamics scores to
    gather. compile runs the student through torch.compile.
    """

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
    accumulate: int = 1
    clip_norm: float = 0.0
    compile: bool = False
    track: tuple[str, ...] = ()
    log_every: int = 20
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    progressive: ProgressiveSettings = field(default_factory=ProgressiveSettings)
    mix: MixSettings = field(default_factory=MixSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
    dynamic: DynamicSettings = field(default_factory=DynamicSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)

    def __post_init__(self) -> None:
        _check_finite(self, "")
        check(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        check(0 <= self.seed < 2**63, "seed", self.seed, "0 or more and below 2^63")
        check(self.precision in PRECISIONS, "precision", self.precision, " or ".join(PRECISIONS))
        check(len(self.mean) == 3 and len(self.std) == 3, "mean and std", (self.mean, self.std), "three numbers each")
        check(all(s > 0 for s in self.std), "std", self.std, "positive")
        check(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "in [0, 1)")
        check(self.log_every >= 1, "log_every", self.log_every, "1 or more")
        check(self.accumulate >= 1, "accumulate", self.accumulate, "1 or more")
        check(self.batch_size % self.accumulate == 0, "accumulate", self.accumulate, f"a divisor of {self.batch_size}")
        check(self.clip_norm >= 0, "clip_norm", self.clip_norm, "0 or more")
        if self.progressive.start > self.train_view.size:
            raise ValueError(
                f"progressive.start {self.progressive.start} exceeds train_view.size {self.train_view.size}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain values (tuples as lists), which `load_recipe` reads back."""
        plain = dataclasses.asdict(self)
        result = yaml.safe_load(yaml.safe_dump(_lists(plain)))
        assert isinstance(result, dict)
        return result


def _check_finite(value: Any, key: str) -> None:
    """Raise ValueError naming the setting for an infinite number, or one that is none, anywhere in the settings."""
    if isinstance(value, float):
        check(math.isfinite(value), key, value, "a finite number")
    elif isinstance(value, (tuple, list)):
        for item in value:
            _check_finite(item, key)
    elif isinstance(value, dict) or dataclasses.is_dataclass(value):
        parts = (
            value if isinstance(value, dict) else {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        )
        for name, item in parts.items():
            _check_finite(item, f"{key}.{name}" if key else name)


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value
