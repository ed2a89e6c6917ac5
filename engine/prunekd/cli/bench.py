"""`prunekd bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prunekd.cli._shared import DEVICE, JSON, STORE, WORKERS, booked_from, emit
from prunekd.cli._teacher import TEACHER_HELP, teacher_options
from prunekd.cli._training import settings_of, training_options

if TYPE_CHECKING:
    from prunekd.reporting.results import Sweep
    from prunekd.sweep.forecast import Forecast


class Ratios(click.ParamType):
    """Comma-separated keep ratios."""

    name = "R,R,..."

    def convert(
        self, value: str | tuple[float, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
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

    def convert(
        self, value: str | tuple[str, float], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
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
def command(
    began: float,
    *,
    store: Path,
    recipe: str,
    alpha: str | None,
    temperature: float | None,
    reader: str,
    on_error: str,
    overrides: tuple[str, ...],
    out: Path,
    keeps: tuple[float, ...],
    arms: str,
    own_arms: tuple[str, ...],
    sweep: str | None,
    policies: str,
    seeds: int,
    teacher: str | None,
    labels: Path | None,
    views: int,
    scores: Path | None,
    reshape: bool,
    cold: bool,
    time_only: int,
    dry_run: bool,
    costs: tuple[tuple[str, float], ...],
    wandb: str | None,
    teacher_precision: str,
    teacher_size: str | None,
    teacher_compile: str,
    device: str,
    workers: int | None,
    as_json: bool,
) -> None:
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
    from prunekd.api.sweeps import SweepSettings, forecast, run_sweep
    from prunekd.cli._dashboard import SweepView

    with booked_from(began) as ledger:
        settings = SweepSettings(
            recipe=recipe,
            settings=settings_of(overrides, alpha, temperature),
            keeps=keeps,
            arms=tuple(arms.split(",")),
            own_arms=own_arms,
            sweep=sweep,
            policies=tuple(policies.split(",")),
            seeds=seeds,
            teacher=teacher,
            teacher_precision=teacher_precision,
            teacher_size=teacher_size,
            teacher_compile=teacher_compile,
            labels=labels,
            views=views,
            scores=scores,
            reshape=reshape,
            cold=cold,
            time_only=time_only,
            costs=dict(costs),
            reader=reader,
            on_error=on_error,
            workers=workers,
        )
        if dry_run:
            estimated = forecast(settings, store, out=out, device=device)
            emit(estimated.to_dict(), as_json, _table(estimated))
            return
        with SweepView(out.name) as view:
            found = run_sweep(
                settings,
                store,
                out=out,
                wandb=wandb,
                device=device,
                progress=view.watch,
                passes=view.passes,
                ledger=ledger,
            )
    if sweep:
        _emit_alphas(found, as_json)
        return
    results = [found.result(name) for name in found.asked]
    emit(results, as_json, "\n".join([*map(_line, results), str(out)]))


def _emit_alphas(sweep: "Sweep", as_json: bool) -> None:
    from prunekd.reporting.alpha_table import FILE, alpha_rows, alpha_text

    rows = alpha_rows(sweep)
    emit(rows, as_json, f"{alpha_text(rows)}\n{sweep.path / FILE}")


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


def _table(found: "Forecast") -> str:
    from prunekd.cli._dashboard import duration
    from prunekd.reporting.wording import number, plural

    width = max([len("run"), *(len(item.run.name) for item in found.runs)])
    lines = [f"{'run':{width}}  epochs      samples    training  evaluation"]
    lines += [
        f"{item.run.name:{width}}  {item.run.epochs:6}  {item.samples:11,}  {number(item.train_seconds):>8} s  "
        f"{number(item.eval_seconds):>8} s"
        for item in found.runs
    ]
    lines += [f"once: {name}, about {duration(seconds)}" for name, seconds in found.once.items()]
    rest = f" ({found.finished} more are done)" if found.finished else ""
    lines += [f"{plural(len(found.runs), 'run')}{rest}: about {duration(found.seconds)} in all", found.note]
    return "\n".join(lines)
