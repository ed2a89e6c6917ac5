"""A run's folder: what it was asked, where it stands, what came out.

run.json            recipe and provenance      metrics.jsonl, tensorboard/   the log
checkpoints/        where to go on from        model.safetensors             the trained student
result.json         figures of the finished run
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunekd.common.files import read_json, write_json
from prunekd.common.lock import HELD_FILE, LOCK_FILE
from prunekd.common.machine import describe_machine
from prunekd.common.registry import unknown
from prunekd.distill import (
    CachedTeacher,
    Objective,
    ObjectiveSettings,
    OnlineTeacher,
    create_objective,
    resolve_alpha,
)
from prunekd.distill.teacher_files import digest_of
from prunekd.input import READERS
from prunekd.models import own_name
from prunekd.pruning.subset import Subset
from prunekd.pruning.training_dynamics import DYNAMICS
from prunekd.store import Store
from prunekd.training.settings import Recipe

RUN_FILE = "run.json"
IDENTITY = ("recipe", "model", "store", "subset", "teacher", "soft_labels", "alpha", "temperature", "reshaping")
INPUTS = ("store", "subset", "teacher", "soft_labels")  # the parts of IDENTITY that are found under some path
CIRCUMSTANCES = ("path", "spec", "seconds", "resumed", "machine")  # of an input, beside its contents


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What to train on, towards what, and where to.

    model None trains a new student as recipe.model says; a module of the user's own is trained in place. subset None
    trains on all samples; teacher and cached (soft labels) both None trains on labels alone; class_scale
    (C,) float32 switches P2's logit reshaping on; on_error says what the reader does with a corrupt sample; tags
    (arm, policy, ...) are copied into result.json.
    """

    store: Store
    recipe: Recipe
    out: Path
    model: nn.Module | None = None
    subset: Subset | None = None
    teacher: OnlineTeacher | None = None
    class_scale: Tensor | None = None
    cached: CachedTeacher | None = None
    reader: str = "native"
    on_error: str = "raise"
    workers: int | None = None
    tags: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            raise unknown("reader", self.reader, READERS)
        if self.subset is not None:
            self.subset.check(self.store, "train")
        if self.teacher is not None:
            self.teacher.check_fits(self.store.classes)
        if self.class_scale is not None and not self.distils:
            raise ValueError("logit reshaping changes the teacher's logits; give a teacher too")
        if self.cached is not None and self.teacher is not None:
            raise ValueError("the run has both a teacher and cached soft labels; give one of them")
        resized = self.recipe.progressive.start and self.recipe.train_view.kind != "random_resized_crop"
        if self.cached is not None and resized:
            raise ValueError(
                f"with views of kind {self.recipe.train_view.kind} a growing resolution changes what is cut out, and "
                "cached soft labels would not fit; set progressive.start to 0"
            )
        for name in self.recipe.track:
            if name not in DYNAMICS:
                raise unknown("training-dynamics score", name, DYNAMICS)
        if self.recipe.track and self.recipe.mix.on:
            raise ValueError("training dynamics of mixed images belong to no sample; set mix.mixup and mix.cutmix to 0")
        self.objective(torch.device("cpu"))  # raises what is wrong with it

    @property
    def model_name(self) -> str:
        """The student's architecture: a name that `create_model` knows, or `module:CLASS` for the user's own."""
        return self.recipe.model.name if self.model is None else own_name(self.model)

    @property
    def total(self) -> int:
        """Training samples of the store, before any were left out by compacting it."""
        return self.store.whole("train")

    @property
    def kept(self) -> int:
        """Samples trained on."""
        return len(self.store.split("train")) if self.subset is None else len(self.subset.ids)

    @property
    def keep(self) -> float:
        """Keep ratio r = kept / total, in (0, 1]."""
        return self.kept / self.total

    def objective_settings(self) -> tuple[ObjectiveSettings, str]:
        """Resolved alpha, temperature and smoothing, and where alpha came from."""
        distill = self.recipe.distill
        if not self.distils:
            return ObjectiveSettings(alpha=0.0, label_smoothing=self.recipe.label_smoothing), "no teacher"
        alpha, reason = resolve_alpha(distill.alpha, self.keep)
        settings = ObjectiveSettings(
            alpha=alpha, temperature=distill.temperature, label_smoothing=self.recipe.label_smoothing
        )
        return settings, reason

    @property
    def distils(self) -> bool:
        """True if there is a teacher, online or cached."""
        return self.teacher is not None or self.cached is not None

    def objective(self, device: torch.device) -> Objective:
        """The objective this run minimises, with its constants on `device`."""
        settings, _ = self.objective_settings()
        if not self.distils:
            return create_objective("hard", settings)
        distill = self.recipe.distill
        scale = None if self.class_scale is None else self.class_scale.to(device)
        return create_objective(distill.objective, settings, scale, distill.options)

    def told_objective(self) -> str:
        """The objective in words: `kd, alpha 0.5 (as set), temperature 4`."""
        settings, reason = self.objective_settings()
        smoothing = f", label smoothing {settings.label_smoothing:g}" if settings.label_smoothing else ""
        if not self.distils:
            return f"labels alone{smoothing}"
        distill = self.recipe.distill
        options = "".join(f", {name} {value}" for name, value in distill.options.items())
        shaped = ", logits reshaped by class" if self.class_scale is not None else ""
        return (
            f"{distill.objective}{options}, alpha {settings.alpha:g} ({reason}), temperature "
            f"{settings.temperature:g}{smoothing}{shaped}"
        )

    def describe(self) -> dict[str, Any]:
        """Contents of run.json."""
        settings, reason = self.objective_settings()
        return {
            "format": "prunekd-run",
            "version": 1,
            "recipe": self.recipe.to_dict(),
            "model": None if self.model is None else self.model_name,
            "initial_weights": None if self.model is None else digest_of(self.model),
            "store": {"path": str(self.store.path), "fingerprint": self.store.fingerprint},
            "subset": None if self.subset is None else self.subset.describe(),
            "teacher": None if self.teacher is None else self.teacher.describe(),
            "soft_labels": None if self.cached is None else {"path": str(self.cached.path), **self.cached.info},
            "alpha": settings.alpha if self.distils else None,
            "alpha_from": reason,
            "temperature": settings.temperature if self.distils else None,
            "reshaping": self.class_scale is not None,
            "reader": self.reader,
            "on_error": self.on_error,
            "tags": self.tags,
            "machine": describe_machine(),
        }


def check_folder(out: Path, described: Mapping[str, Any], resume: str | None) -> None:
    """Check that a run that describes itself as `described` may use the folder `out`; writes nothing.

    Raises:
        ValueError: the folder is in use and `resume` was not asked for, or it holds another run.
    """
    file = out / RUN_FILE
    if not file.exists():
        if resume not in (None, "auto"):
            raise ValueError(f"{out} holds no run to resume; leave --resume out to start one")
        if out.exists() and any(not _passing(path.name) for path in out.iterdir()):
            raise ValueError(f"{out} exists and is not empty; choose another --out")
        return
    if resume is None:
        raise ValueError(f"{out} holds a run already; use --resume auto to go on with it, or another --out")
    before = read_json(file, {"recipe": dict, "store": dict})
    for key in IDENTITY:
        old, new = before.get(key), described[key]
        if key in INPUTS:
            old, new = identity(old, new)
        if old != new:
            raise ValueError(
                f"{out} was started with {_difference(key, old, new)}; "
                "resume it with the settings it was started with, or choose another --out"
            )


def _passing(name: str) -> bool:
    """Whether a file is a lock, or what a process was writing when it was killed: not yet a run."""
    return name in (LOCK_FILE, HELD_FILE) or (name.startswith(f".{RUN_FILE}.") and name.endswith(".tmp"))


def begin_folder(out: Path, described: Mapping[str, Any]) -> None:
    """Write the run.json of a new run; a resumed one keeps its own."""
    if not (out / RUN_FILE).exists():
        write_json(out / RUN_FILE, described)


def identity(before: Any, now: Any) -> tuple[Any, Any]:
    """Two values of one part of run.json, less what does not decide whether the runs are the same.

    Paths and seconds do not: contents are compared, by fingerprint or digest. Nor does what an older version did not
    write.
    """
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return before, now
    names = [name for name in before if name not in CIRCUMSTANCES]
    pairs = {name: identity(before[name], now.get(name)) for name in names}
    return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}


def _difference(key: str, before: Any, now: Any) -> str:
    """Name the first leaf in which two settings trees differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *now]:
            if before.get(name) != now.get(name):
                return _difference(f"{key}.{name}", before.get(name), now.get(name))
    return f"{key} = {before!r}, not {now!r}"
