"""From a sweep's settings to a sweep that can be trained: scores and soft labels are made where they are needed."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from prunekd.common.distributed import World
from prunekd.common.ledger import Ledger
from prunekd.distill import CachedTeacher
from prunekd.distill.opening import as_teacher
from prunekd.inference.label_pass import LabelSpec, choose_topk, make_labels
from prunekd.inference.score_pass import LOGITS, score_names, score_store
from prunekd.pruning.policies import POLICIES
from prunekd.pruning.scores import Scores, as_scores
from prunekd.store import Store
from prunekd.sweep.arms import alpha_arms, parse_arm
from prunekd.sweep.forecast import Forecast, forecast
from prunekd.sweep.grid import WHOLE, SweepSpec, plan_runs
from prunekd.sweep.run import check_same_sweep, run_spec
from prunekd.sweep.settings import SweepSettings
from prunekd.training.course import steps_per_epoch
from prunekd.training.inputs import as_labels, class_scale
from prunekd.training.learner import create_student
from prunekd.training.recipe import as_recipe

logger = logging.getLogger(__name__)

Passes = Callable[[str, int, int], None]  # `score` or `labels`, then samples or records done and in all


def prepare(
    settings: SweepSettings, store: Store, out: Path, world: World, *, ledger: Ledger, passes: Passes
) -> SweepSpec:
    """The sweep that `settings` describe, with the scores and soft labels that it needs; those not given are made.

    Args:
        ledger: gets what this takes, under setup, score and labels.
        passes: called while the teacher goes over the store.

    Raises:
        ValueError: see open_sweep; scores or soft labels of another store.
    """
    with ledger.phase("setup"):
        spec = open_sweep(settings, store, out, world)
    costs = dict(spec.costs)
    if _wants_scores(settings, spec):
        with ledger.phase("score"):
            scores = _scores(settings, spec, world, passes)
        costs["score"] = {"seconds": scores.provenance.get("seconds", 0.0)}
        scale = class_scale(scores, store) if settings.reshape else None
        spec = replace(spec, scores=scores, class_scale=scale)
    if _wants_labels(spec):
        with ledger.phase("labels"):
            cached = _labels(settings, spec, world, passes)
        costs["labels"] = {"seconds": cached.info.get("seconds", 0.0)}
        spec = replace(spec, cached=cached)
    return replace(spec, costs=costs)


def open_sweep(settings: SweepSettings, store: Store, out: Path, world: World) -> SweepSpec:
    """The sweep that `settings` describe, but for its scores and soft labels.

    Raises:
        ValueError: something that cannot be trained, found before anything is made.
    """
    own = tuple(parse_arm(text) for text in settings.own_arms)
    named = [name.strip().replace("-", "_") for name in settings.arms]
    if settings.sweep == "alpha":
        named, own = ["plain"], (*own, *alpha_arms("cached" if settings.labels else "online"))
    teacher = None
    if settings.teacher is not None:
        teacher = as_teacher(
            settings.teacher,
            store.classes,
            precision=settings.teacher_precision,
            size=settings.teacher_size,
            compile=settings.teacher_compile,
            device=world.device,
        )
        logger.info(f"teacher: {teacher!r}")
    spec = SweepSpec(
        store=store,
        recipe=as_recipe(settings.recipe, settings.settings),
        out=out,
        keeps=settings.keeps,
        arms=tuple(dict.fromkeys([*named, *(arm.name for arm in own)])),
        own_arms=own,
        policies=settings.policies,
        seeds=tuple(range(settings.seeds)),
        teacher=teacher,
        reader=settings.reader,
        on_error=settings.on_error,
        workers=settings.workers,
        costs={name: {"seconds": seconds} for name, seconds in settings.costs.items()},
        time_only=settings.time_only,
        cold=settings.cold,
    )
    spec.check_keeps()
    if teacher is None:
        _check_without_teacher(settings, spec)
    _check_runs(spec, world)
    check_same_sweep(spec)
    return spec


def estimate(settings: SweepSettings, store: Store, out: Path, world: World) -> Forecast:
    """What is left to do of the sweep, and how long it would take; writes nothing.

    Raises:
        ValueError: see open_sweep.
    """
    spec = open_sweep(settings, store, out, world)
    passes = {}
    if _wants_scores(settings, spec) and settings.scores is None and not _scores_file(out).exists():
        passes["score"] = 1
    if _wants_labels(spec) and settings.labels is None and not (_labels_folder(out) / "labels.json").exists():
        passes["labels"] = settings.views
    planned = plan_runs(spec)
    runs = [run for run in planned if not (out / "runs" / run.name / "result.json").exists()]
    found = forecast(spec, world, runs=runs, batches=settings.time_only or 4, passes=passes)
    return replace(found, finished=len(planned) - len(runs))


def _check_runs(spec: SweepSpec, world: World) -> None:
    """Raise ValueError for a run that could not begin: settings of an arm, a batch beyond its samples, a model."""
    total = len(spec.store.split("train"))
    bare = replace(spec, cached=None, class_scale=None)
    students = set()
    for run in plan_runs(replace(bare, seeds=spec.seeds[:1])):
        try:
            planned = run_spec(bare, run, None)
            recipe = planned.recipe
            steps_per_epoch(recipe, total if run.policy == WHOLE else round(run.keep * total), world)
            student = (recipe.model, recipe.train_view, recipe.eval_view, recipe.progressive)
            if student not in students:
                create_student(planned, world)
            students.add(student)
        except ValueError as error:
            raise ValueError(f"run {run.name}: {error}") from None


def _check_without_teacher(settings: SweepSettings, spec: SweepSpec) -> None:
    if settings.reshape and settings.scores is None:
        raise ValueError("--reshape needs the class statistics of scores; give --scores or a --teacher")
    for arm in spec.used_arms.values():
        if arm.teacher == "online" or (arm.teacher == "cached" and settings.labels is None):
            raise ValueError(
                f"arm {arm.name!r} distils and needs a teacher; give --teacher"
                f"{' or --labels' if arm.teacher == 'cached' else ''}, or only the arm plain"
            )
    if spec.needs_scores and settings.scores is None:
        ranked = next(name for name in spec.used_policies if POLICIES[name].needs_score)
        raise ValueError(f"policy {ranked!r} ranks by a score; give --scores or a --teacher to score with")


def _wants_scores(settings: SweepSettings, spec: SweepSpec) -> bool:
    return settings.reshape or spec.needs_scores


def _wants_labels(spec: SweepSpec) -> bool:
    return any(arm.teacher == "cached" for arm in spec.used_arms.values())


def _scores_file(out: Path) -> Path:
    return out / "scores.parquet"


def _labels_folder(out: Path) -> Path:
    return out / "labels"


def _scores(settings: SweepSettings, spec: SweepSpec, world: World, passes: Passes) -> Scores:
    """Those given; the sweep's own, read back if an earlier process made them; or new ones."""
    given = settings.scores
    if given is None and _scores_file(spec.out).exists():
        given = _scores_file(spec.out)
    if given is not None:
        scores = as_scores(given)
        scores.check(spec.store, "train")
        return scores
    assert spec.teacher is not None
    scores = score_store(
        spec.store,
        spec.teacher,
        spec.recipe.eval_view,
        world,
        names=score_names(LOGITS),
        batch_size=spec.recipe.eval.batch_size,
        workers=settings.workers,
        progress=partial(passes, "score"),
    )
    file = _scores_file(spec.out)
    scores.save(file)
    logger.info(f"scored in {scores.provenance['seconds']:.1f} s: {file}")
    return scores


def _labels(settings: SweepSettings, spec: SweepSpec, world: World, passes: Passes) -> CachedTeacher:
    """Those given, or the sweep's own, made or completed if need be."""
    given = settings.labels
    if given is None:
        given = _labels_folder(spec.out)
        if not (given / "labels.json").exists():
            _make_labels(settings, spec, given, world, passes)
    return as_labels(given, spec.store, spec.recipe, None, world.device)


def _make_labels(settings: SweepSettings, spec: SweepSpec, out: Path, world: World, passes: Passes) -> None:
    assert spec.teacher is not None
    topk, kept = choose_topk(None, len(spec.store.classes))
    wanted = LabelSpec(store=spec.store, teacher=spec.teacher, recipe=spec.recipe, views=settings.views, topk=topk)
    logger.info(f"soft labels: {len(wanted.ids)} samples x {wanted.views} views, {kept}")
    made = make_labels(
        wanted,
        world,
        out,
        batch_size=spec.recipe.eval.batch_size,
        workers=settings.workers,
        progress=partial(passes, "labels"),
    )
    logger.info(f"soft labels made in {made['seconds']:.1f} s: {out}")
