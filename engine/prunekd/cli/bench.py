"""`prunekd bench`."""

from pathlib import Path
from typing import Any

import click

from prunekd.cli._shared import DEVICE, JSON, STORE, WORKERS, emit, progress_bar, say
from prunekd.cli._teacher import TEACHER_HELP, open_teacher_with, teacher_options


class Ratios(click.ParamType):
    """Comma-separated keep ratios."""

    name = "R,R,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            ratios = tuple(float(item) for item in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 1,0.5,0.25", param, ctx)
        for ratio in ratios:
            if not 0 < ratio <= 1:
                self.fail(f"{ratio:g} is no keep ratio; a keep ratio is the fraction kept, in (0, 1]", param, ctx)
        return tuple(dict.fromkeys(ratios))


@click.command("bench")
@STORE
@click.option("--recipe", required=True, help="A recipe's name or a YAML file.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the sweep; resumed if it exists."
)
@click.option("--keep", "keeps", type=Ratios(), default="1,0.7,0.5,0.3,0.1", show_default=True, help="Keep ratios.")
@click.option("--arms", default="plain,kd,equal_time", show_default=True, help="Any of plain, kd, equal_time.")
@click.option("--policies", default="random", show_default=True, help="Comma-separated policies for pruned runs.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Number of seeds.")
@click.option("--teacher", help=TEACHER_HELP)
@click.option(
    "--scores",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Scores for policies that need them [default: scored with the teacher, in the ledger].",
)
@click.option(
    "--reshape/--no-reshape", default=False, help="Reshape the teacher's logits with the scores' class statistics."
)
@click.option("--alpha", help="Weight of the teacher's term in [0, 1], or auto (follows the keep ratio).")
@click.option("--temperature", type=float, help="Temperature of the teacher's term.")
@click.option("--reader", default="native", show_default=True, help="Which reader feeds the training.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. epochs=30.")
@teacher_options("bf16")
@DEVICE
@WORKERS
@JSON
def command(**options: Any) -> None:
    """Train a grid of keep ratios, arms, policies and seeds on STORE, timed.

    The runs of a seed take turns epoch by epoch, so that a machine's drift hits all alike. A stopped sweep goes on
    when the command is given again.

    \b
    Example:
      prunekd bench store --recipe demo --teacher teacher --keep 1,0.5,0.25 --seeds 3 --out sweep
      prunekd report sweep --out report.html
    """
    from prunekd.training import open_world

    with open_world(options["device"]) as world:
        if world.size > 1:
            raise ValueError("bench runs in one process; train the arms one by one under torchrun instead")
        results = bench(world, **options)
    lines = [
        f"{r['name']}: top-1 {r['top1']:.2%}, {r['train_seconds']:.1f} s training, "
        f"{r['images_per_second']:.0f} images/s"
        for r in results
    ]
    emit(results, options["as_json"], "\n".join([*lines, str(options["out"])]))


def bench(world: Any, **options: Any) -> list[dict[str, Any]]:
    """Run a sweep from the options of the command."""
    import torch

    from prunekd.cli.train import overrides_option
    from prunekd.pruning.policies import POLICIES
    from prunekd.pruning.scores import read_scores
    from prunekd.report.sweep import SweepSpec, plan_runs, run_sweep
    from prunekd.store.index import open_store
    from prunekd.training import load_recipe

    store = open_store(options["store"])
    recipe = load_recipe(options["recipe"], overrides_option(options))
    teacher, info = open_teacher_with(options, options["teacher"], store.classes, world.device)
    policies = tuple(options["policies"].split(","))
    wants_scores = options["reshape"] or any(p in POLICIES and POLICIES[p].needs_score for p in policies)
    scores = None
    if options["scores"]:
        scores = read_scores(options["scores"])
        scores.check(store)
    elif wants_scores and teacher is not None:
        scores = _own_scores(world, store, teacher, info, recipe, options)
    if options["reshape"] and scores is None:
        raise ValueError("--reshape needs the class statistics of scores; give --scores or a --teacher")
    spec = SweepSpec(
        store=store,
        recipe=recipe,
        out=options["out"],
        keeps=options["keeps"],
        arms=tuple(options["arms"].split(",")),
        policies=policies,
        seeds=tuple(range(options["seeds"])),
        teacher=teacher,
        teacher_info=info,
        class_scale=torch.as_tensor(scores.class_std, dtype=torch.float32) if options["reshape"] and scores else None,
        scores=scores,
        reader=options["reader"],
        workers=options["workers"],
        costs={"score": {"seconds": scores.provenance["seconds"]}} if scores and wants_scores else {},
    )
    runs = plan_runs(spec)
    say(f"{len(runs)} runs: {', '.join(run.name for run in runs)}")
    total = sum(run.epochs for run in runs)
    done = 0
    with progress_bar(total, "bench") as update:

        def progress(run: Any, values: dict[str, Any]) -> None:
            nonlocal done
            done += values["kind"] == "epoch"
            update(done, f"epochs  {run.name}: epoch {values['epoch']}, top-1 {values['top1']:.1%}")

        return run_sweep(spec, world, progress=progress, say=say)


def _own_scores(world: Any, store: Any, teacher: Any, info: Any, recipe: Any, options: dict[str, Any]) -> Any:
    """The sweep's scores.parquet: read back if an earlier part of the sweep made it, computed otherwise."""
    from prunekd.pruning.scores import SCORES, read_scores, write_scores
    from prunekd.training.score_pass import score_store

    file = options["out"] / "scores.parquet"
    if file.exists():
        scores = read_scores(file)
        scores.check(store)
        return scores
    with progress_bar(len(store.split("train")), "score") as update:
        scores = score_store(
            store,
            teacher,
            info,
            recipe.eval_view,
            world,
            names=list(SCORES),
            batch_size=recipe.eval.batch_size,
            workers=options["workers"],
            progress=lambda done, _total: update(done, "samples"),
        )
    write_scores(file, scores)
    say(f"scored in {scores.provenance['seconds']:.1f} s: {file}")
    return scores
