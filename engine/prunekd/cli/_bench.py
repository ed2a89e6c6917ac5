"""What `prunekd bench` does: settings, what has to be made first, the sweep, or an estimate of it."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prunekd.cli._dashboard import dashboard, duration
from prunekd.cli._shared import progress_bar, say
from prunekd.cli._teacher import open_teacher_with
from prunekd.cli._training import labels_option, overrides_option
from prunekd.common.distributed import World
from prunekd.common.files import replacing
from prunekd.common.ledger import Ledger
from prunekd.inference.label_pass import LabelSpec, choose_topk, make_labels
from prunekd.inference.score_pass import score_store
from prunekd.pruning.policies import POLICIES
from prunekd.pruning.scores import SCORES, Scores, read_scores, write_scores
from prunekd.report.alpha_table import alpha_rows, alpha_text
from prunekd.report.results import read_sweep
from prunekd.report.wording import number, plural
from prunekd.store import open_store
from prunekd.sweep.arms import alpha_arms, parse_arm
from prunekd.sweep.forecast import forecast
from prunekd.sweep.grid import PlannedRun, SweepSpec, plan_runs
from prunekd.sweep.logs import Log, TensorBoardLog, WandbLog
from prunekd.sweep.progress import SweepProgress
from prunekd.sweep.run import run_spec, run_sweep
from prunekd.sweep.timing import MEASURED, samples_per_epoch, samples_per_run
from prunekd.training import load_recipe

Options = dict[str, Any]


def prepare(world: World, options: Options, ledger: Ledger) -> SweepSpec:
    """The sweep the options describe, with scores and soft labels made where they are needed and not given."""
    with ledger.phase("setup"):
        spec = _settings(world, options)
    costs = dict(spec.costs)
    if _wants_scores(spec, options):
        with ledger.phase("score"):
            scores = _scores(world, spec, options)
        costs["score"] = {"seconds": scores.provenance.get("seconds", 0.0)}
        scale = torch.as_tensor(scores.class_std, dtype=torch.float32) if options["reshape"] else None
        spec = replace(spec, scores=scores, class_scale=scale)
    if _wants_labels(spec):
        with ledger.phase("labels"):
            cached = _labels(world, spec, options)
        costs["labels"] = {"seconds": cached.info.get("seconds", 0.0)}
        spec = replace(spec, cached=cached)
    return replace(spec, costs=costs)


def _settings(world: World, options: Options) -> SweepSpec:
    """Everything but scores and soft labels; raises ValueError for what cannot be before anything is made."""
    store = open_store(options["store"])
    own = tuple(parse_arm(text) for text in options["own_arms"])
    named = [name.strip().replace("-", "_") for name in options["arms"].split(",")]
    if options["sweep"] == "alpha":
        named, own = ["plain"], (*own, *alpha_arms("cached" if options["labels"] else "online"))
    teacher, info = open_teacher_with(options, options["teacher"], store.classes, world.device)
    spec = SweepSpec(
        store=store,
        recipe=load_recipe(options["recipe"], overrides_option(options)),
        out=options["out"],
        keeps=options["keeps"],
        arms=tuple(dict.fromkeys([*named, *(arm.name for arm in own)])),
        own_arms=own,
        policies=tuple(options["policies"].split(",")),
        seeds=tuple(range(options["seeds"])),
        teacher=teacher,
        teacher_info=info,
        reader=options["reader"],
        on_error=options["on_error"],
        workers=options["workers"],
        costs={name: {"seconds": seconds} for name, seconds in options["costs"]},
        time_only=options["time_only"],
        cold=options["cold"],
    )
    spec.check_keeps()
    if teacher is None:
        if options["reshape"] and not options["scores"]:
            raise ValueError("--reshape needs the class statistics of scores; give --scores or a --teacher")
        for arm in spec.used_arms.values():
            if arm.teacher == "online" or (arm.teacher == "cached" and not options["labels"]):
                raise ValueError(
                    f"arm {arm.name!r} distils and needs a teacher; give --teacher"
                    f"{' or --labels' if arm.teacher == 'cached' else ''}, or only the arm plain"
                )
        if spec.needs_scores and not options["scores"]:
            ranked = next(name for name in spec.used_policies if POLICIES[name].needs_score)
            raise ValueError(f"policy {ranked!r} ranks by a score; give --scores or a --teacher to score with")
    return spec


def _wants_scores(spec: SweepSpec, options: Options) -> bool:
    return bool(options["reshape"] or spec.needs_scores)


def _wants_labels(spec: SweepSpec) -> bool:
    return any(arm.teacher == "cached" for arm in spec.used_arms.values())


def _scores(world: World, spec: SweepSpec, options: Options) -> Scores:
    """Those given; the sweep's own, read back if an earlier part of the sweep made them; or new ones."""
    file = options["scores"] or options["out"] / "scores.parquet"
    if file.exists():
        scores = read_scores(file)
        scores.check(spec.store)
        return scores
    assert spec.teacher is not None
    with progress_bar(len(spec.store.split("train")), "score") as update:
        scores = score_store(
            spec.store,
            spec.teacher,
            spec.teacher_info or {},
            spec.recipe.eval_view,
            world,
            names=[name for name, score in SCORES.items() if not score.needs_features],
            batch_size=spec.recipe.eval.batch_size,
            workers=options["workers"],
            progress=lambda done, _total: update(done, "samples"),
        )
    write_scores(file, scores)
    say(f"scored in {scores.provenance['seconds']:.1f} s: {file}")
    return scores


def _labels(world: World, spec: SweepSpec, options: Options) -> Any:
    """Those given, or the sweep's own, made or completed if need be."""
    path = options["labels"]
    if path is None:
        path = options["out"] / "labels"
        if not (path / "labels.json").exists():
            assert spec.teacher is not None
            topk, kept = choose_topk(None, len(spec.store.classes))
            wanted = LabelSpec(
                store=spec.store,
                teacher=spec.teacher,
                teacher_info=spec.teacher_info or {},
                recipe=spec.recipe,
                views=options["views"],
                topk=topk,
            )
            say(f"soft labels: {len(wanted.ids)} samples x {wanted.views} views, {kept}")
            with progress_bar(len(wanted.ids) * wanted.views, "labels") as update:
                made = make_labels(
                    wanted,
                    world,
                    path,
                    batch_size=spec.recipe.eval.batch_size,
                    workers=options["workers"],
                    progress=lambda done, _total: update(done, "records"),
                )
            say(f"soft labels made in {made['seconds']:.1f} s: {path}")
    return labels_option(path, spec.store, spec.recipe, None, world.device)


def train(world: World, spec: SweepSpec, options: Options, ledger: Ledger) -> list[dict[str, Any]]:
    """Run the sweep with its dashboard and logs, and return the results."""
    spec.check_inputs()
    runs = plan_runs(spec)
    finished = [run.name for run in runs if (spec.out / "runs" / run.name / "result.json").exists()]
    say(f"{plural(len(runs), 'run')}: {', '.join(run.name for run in runs)}")
    if spec.time_only:
        say(f"timing only: what follows is extrapolated from {spec.time_only} batches an epoch, nothing is trained")
    progress = SweepProgress([(run, *_extent(spec, run)) for run in runs], finished)
    logs = _open_logs(spec, options)
    try:
        with dashboard(progress, options["out"].name) as show:

            def update(run: PlannedRun, values: dict[str, Any]) -> None:
                state = progress.update(run, values)
                for log in logs:
                    log.write(run.name, values["step"], state.numbers())
                    log.write("sweep", round(100 * len(runs) * progress.share), progress.numbers())
                show(state)

            return run_sweep(spec, world, progress=update, ledger=ledger)
    finally:
        for log in logs:
            log.close()


def alpha_table(out: Path) -> tuple[list[dict[str, Any]], str]:
    """What a sweep over alpha found, as rows and as text; the rows are written to alpha.csv in its folder, too."""
    rows, file = alpha_rows(read_sweep(out)), out / "alpha.csv"
    with replacing(file) as new, new.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows, f"{alpha_text(rows)}\n{file}"


def _extent(spec: SweepSpec, run: PlannedRun) -> tuple[int, int]:
    """Samples and epochs a run trains for in all, or in its short epochs if it is only timed."""
    if spec.time_only:
        return (1 + MEASURED) * spec.time_only * spec.recipe.batch_size, 1 + MEASURED
    total = len(spec.store.split("train"))
    kept = total if run.policy == "all" else round(run.keep * total)
    planned = run_spec(replace(spec, cached=None, class_scale=None), run, None)
    samples = max(1, samples_per_run(planned, kept))
    return samples, -(-samples // max(1, samples_per_epoch(planned, kept)))


def _open_logs(spec: SweepSpec, options: Options) -> list[Log]:
    logs: list[Log] = []
    if options["wandb"]:
        config = {"recipe": spec.recipe.to_dict(), "arms": list(spec.used_arms), "keeps": list(spec.keeps)}
        logs.append(WandbLog(options["wandb"], options["out"].name, spec.out / "wandb", config))
    return [*logs, TensorBoardLog(spec.out / "tensorboard")]


def estimate(world: World, options: Options) -> tuple[dict[str, Any], str]:
    """The plan with its estimated time, as plain values and as text."""
    spec = _settings(world, options)
    passes = {}
    if _wants_scores(spec, options) and not options["scores"] and not (spec.out / "scores.parquet").exists():
        passes["score"] = 1
    if _wants_labels(spec) and not options["labels"] and not (spec.out / "labels/labels.json").exists():
        passes["labels"] = options["views"]
    runs = [run for run in plan_runs(spec) if not (spec.out / "runs" / run.name / "result.json").exists()]
    done = len(plan_runs(spec)) - len(runs)
    found = forecast(spec, world, runs=runs, batches=options["time_only"] or 4, passes=passes)
    rows = [
        {
            "name": item.run.name,
            "epochs": item.run.epochs,
            "samples": item.samples,
            "train_seconds": item.train_seconds,
            "eval_seconds": item.eval_seconds,
        }
        for item in found.runs
    ]
    width = max([len("run"), *(len(item.run.name) for item in found.runs)])
    lines = [f"{'run':{width}}  epochs      samples    training  evaluation"]
    lines += [
        f"{item.run.name:{width}}  {item.run.epochs:6}  {item.samples:11,}  {number(item.train_seconds):>8} s  "
        f"{number(item.eval_seconds):>8} s"
        for item in found.runs
    ]
    lines += [f"once: {name}, about {duration(seconds)}" for name, seconds in found.once.items()]
    rest = f" ({done} more are done)" if done else ""
    lines += [f"{plural(len(rows), 'run')}{rest}: about {duration(found.seconds)} in all", found.note]
    values = {"runs": rows, "once": found.once, "seconds": found.seconds, "finished": done, "note": found.note}
    return values, "\n".join(lines)
