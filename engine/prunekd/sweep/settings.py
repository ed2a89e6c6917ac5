"""Settings of a sweep: what the options of `prunekd bench` and a study file say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from prunekd.common.files import read_text
from prunekd.distill import CachedTeacher, OnlineTeacher
from prunekd.pruning.scores import Scores
from prunekd.training import Recipe
from prunekd.training.recipe import build
from prunekd.training.settings import check


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """A sweep: one recipe over keep ratios, arms, policies and seeds.

    Attributes:
        recipe: a recipe's name, a YAML file, a Recipe, or in a study file its settings.
        settings: changes of the recipe by dotted key, such as {"optimizer.lr": 0.1}.
        keeps: keep ratios, fractions kept in (0, 1].
        arms: names of prunekd.sweep.arms.ARMS and of own_arms.
        own_arms: further arms as `NAME:key=value,...`, see prunekd.sweep.arms.parse_arm; they are trained too.
        sweep: `alpha` trains plain and distillation at alpha 0.25 to 1 in place of `arms`; None trains `arms`.
        policies: choose the samples of arms that fix no policy.
        seeds: number of seeds, 0 to seeds - 1.
        teacher: a spec, a path or an open teacher; teacher_precision, teacher_size and teacher_compile say how one
            that is not open yet runs (see prunekd.open_teacher).
        labels: soft labels of arms that read them, a folder or open ones; None makes them with the teacher.
        views: views per sample of soft labels that are made.
        scores: of policies that need them, a file or Scores; None scores with the teacher.
        reshape: reshape the teacher's logits with the class statistics of the scores.
        cold: drop the store from the operating system's page cache before every epoch.
        time_only: batches of the short epochs to extrapolate from; 0 trains to the end.
        costs: seconds spent once beforehand, by name (teacher, compact, ...).
        reader: a key of prunekd.input.READERS; on_error: `raise`, `replace` or `skip` corrupt samples; workers:
            decoding threads, None for one per core.
    """

    recipe: str | Path | Recipe
    settings: dict[str, object] = field(default_factory=dict)
    keeps: tuple[float, ...] = (1.0, 0.7, 0.5, 0.3, 0.1)
    arms: tuple[str, ...] = ("plain", "kd", "equal_time")
    own_arms: tuple[str, ...] = ()
    sweep: str | None = None
    policies: tuple[str, ...] = ("random",)
    seeds: int = 1
    teacher: str | Path | OnlineTeacher | None = None
    teacher_precision: str = "bf16"
    teacher_size: int | str | None = None
    teacher_compile: str = "auto"
    labels: str | Path | CachedTeacher | None = None
    views: int = 8
    scores: str | Path | Scores | None = None
    reshape: bool = False
    cold: bool = False
    time_only: int = 0
    costs: dict[str, float] = field(default_factory=dict)
    reader: str = "native"
    on_error: str = "raise"
    workers: int | None = None

    def __post_init__(self) -> None:
        check(len(self.keeps) > 0, "keeps", self.keeps, "one keep ratio in (0, 1] or more")
        check(self.sweep in (None, "alpha"), "sweep", self.sweep, "alpha, or left out")
        check(self.seeds >= 1, "seeds", self.seeds, "1 or more")
        check(self.views >= 1, "views", self.views, "1 or more")
        check(self.time_only >= 0, "time_only", self.time_only, "0 or more batches")
        for name, seconds in self.costs.items():
            check(0 <= seconds < float("inf"), f"costs.{name}", seconds, "seconds, 0 or more")


Study = SweepSettings | Mapping[str, object] | str | Path


def as_settings(study: Study) -> SweepSettings:
    """Settings of a sweep from what people hold: SweepSettings, a mapping of its fields, or a YAML file of them.

    Raises:
        ValueError: no such file, not YAML, an unknown field (with the nearest match), or a value out of range.
    """
    if isinstance(study, SweepSettings):
        return study
    if isinstance(study, Mapping):
        return build(SweepSettings, study)
    path = Path(study)
    text = read_text(path, "study")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"study {path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"study {path} must be a mapping of settings, not {type(tree).__name__}")
    return build(SweepSettings, tree)
