"""`prunekd bench`."""

from pathlib import Path
from typing import Any

import click

from prunekd.cli._shared import DEVICE, JSON, STORE, WORKERS, booked_from, emit
from prunekd.cli._teacher import TEACHER_HELP, teacher_options
from prunekd.cli._training import training_options


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


class Cost(click.ParamType):
    """`NAME=SECONDS`."""

    name = "NAME=SECONDS"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        name, _, seconds = value.partition("=")
        try:
            number = float(seconds)
        except ValueError:
            number = -1.0
        if not name.isidentifier() or not 0 <= number < float("inf"):
            self.fail(f"{value!r} is not NAME=SECONDS such as teacher=3600 or compact=12", param, ctx)
        return name, number


@click.command("bench")
@STORE
@training_options
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder of the sweep; resumed if it exists."
)
@click.option("--keep", "keeps", type=Ratios(), default="1,0.7,0.5,0.3,0.1", show_default=True, help="Keep ratios.")
@click.option(
    "--arms",
    default="plain,kd,equal_time",
    show_default=True,
    help="Any of plain, kd, kd_cached, random, medium, infobatch, rs2, equal_time, and the names of --arm.",
)
@click.option(
    "--arm",
    "own_arms",
    multiple=True,
    metavar="NAME:KEY=VALUE,...",
    help="An arm of your own: base (an arm to start from), teacher, policy, or any setting of the recipe.",
)
@click.option(
    "--sweep",
    type=click.Choice(["alpha"]),
    help="In place of --arms: plain training and distillation at alpha 0.25 to 1; the table goes to OUT/alpha.csv too.",
)
@click.option("--policies", default="random", show_default=True, help="Comma-separated policies for arms without one.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Number of seeds.")
@click.option("--teacher", help=TEACHER_HELP)
@click.option(
    "--labels",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Soft labels for arms that read them [default: made with the teacher, in the ledger].",
)
@click.option("--views", type=click.IntRange(min=1), default=8, show_default=True, help="Views of soft labels to make.")
@click.option(
    "--scores",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Scores for policies that need them [default: scored with the teacher, in the ledger].",
)
@click.option(
    "--reshape/--no-reshape", default=False, help="Reshape the teacher's logits with the scores' class statistics."
)
@click.option("--cold", is_flag=True, help="Drop the store from the page cache before every epoch.")
@click.option(
    "--time-only",
    type=click.IntRange(min=0),
    default=0,
    metavar="BATCHES",
    help="Train nothing to its end: time short epochs of so many batches and extrapolate, in every output said so.",
)
@click.option("--dry-run", is_flag=True, help="Time a few batches, print the plan with its estimated time, and stop.")
@click.option(
    "--cost",
    "costs",
    type=Cost(),
    multiple=True,
    help="Seconds spent once beforehand that pruned or distilling runs should answer for: teacher, compact, ...",
)
@click.option("--wandb", metavar="PROJECT", help="Log to this project of Weights & Biases too.")
@teacher_options("bf16")
@DEVICE
@WORKERS
@JSON
@click.pass_obj
def command(began: float, **options: Any) -> None:
    """Train a grid of keep ratios, arms, policies and seeds on STORE, timed.

    The runs of a seed take turns epoch by epoch, so that a machine's drift hits all alike. A stopped sweep goes on
    when the command is given again. While it runs, `tensorboard --logdir OUT` shows the runs and the whole.

    \b
    Example:
      prunekd bench store --recipe demo --teacher teacher --keep 1,0.5,0.25 --seeds 3 --out sweep
      prunekd bench store --recipe demo --teacher teacher --keep 1,0.5 --dry-run --out sweep
      prunekd bench store --recipe demo --teacher teacher --arms kd,hot --arm hot:distill.temperature=8 --out hot
      prunekd bench store --recipe demo --teacher teacher --sweep alpha --keep 1,0.5,0.1 --seeds 3 --out alphas
      prunekd report sweep --out report.html
    """
    from prunekd.cli._bench import alpha_table, estimate, prepare, train
    from prunekd.common.distributed import open_world

    with booked_from(began) as ledger, open_world(options["device"]) as world:
        if world.size > 1:
            raise ValueError("bench runs in one process; train the arms one by one under torchrun instead")
        if options["dry_run"]:
            values, text = estimate(world, options)
            emit(values, options["as_json"], text)
            return
        results = train(world, prepare(world, options, ledger), options, ledger)
    if options["sweep"]:
        rows, text = alpha_table(options["out"])
        emit(rows, options["as_json"], text)
        return
    emit(results, options["as_json"], "\n".join([*map(_line, results), str(options["out"])]))


def _line(result: dict[str, Any]) -> str:
    extrapolated = result.get("extrapolated")
    if extrapolated:
        return (
            f"{result['name']}: {result['train_seconds']:.1f} s training, {result['images_per_second']:.0f} images/s, "
            f"extrapolated from {extrapolated['batches']} batches in {extrapolated['epochs']} short epochs"
        )
    return (
        f"{result['name']}: top-1 {result['top1']:.2%}, {result['train_seconds']:.1f} s training, "
        f"{result['images_per_second']:.0f} images/s"
    )
