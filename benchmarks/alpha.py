"""Which weight of the teacher's term is best at which keep ratio?

Trains the kd arm on random subsets for a grid of alphas, keep ratios and seeds; appends a row per (alpha, keep) to
benchmarks/results/alpha.csv. prunekd.distill.alpha.AUTO_ALPHA was read off that file.

    python benchmarks/alpha.py STORE --recipe demo --teacher RUN
"""

import csv
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from prunekd.common.machine import describe_machine
from prunekd.distill import TeacherSettings, describe_teacher, open_teacher
from prunekd.report.aggregate import summarize_sweep
from prunekd.report.results import read_sweep
from prunekd.report.sweep import SweepSpec, run_sweep
from prunekd.store.index import open_store
from prunekd.training import load_recipe, open_world

RESULTS = Path(__file__).parent / "results" / "alpha.csv"


@click.command()
@click.argument("store", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--recipe", required=True)
@click.option("--teacher", required=True)
@click.option("--keep", "keeps", default="1,0.5,0.25,0.1,0.05", show_default=True)
@click.option("--alphas", default="0,0.25,0.5,0.75,0.9,1", show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
def main(
    store: Path, recipe: str, teacher: str, keeps: str, alphas: str, seeds: int, overrides: tuple[str, ...]
) -> None:
    """Measure and append; see the module's text."""
    opened = open_store(store)
    machine = describe_machine()
    fresh = not RESULTS.exists()
    with open_world() as world, RESULTS.open("a", newline="") as file, tempfile.TemporaryDirectory() as folder:
        loaded = open_teacher(teacher, opened.classes, TeacherSettings(device=world.device))
        settings = load_recipe(recipe, overrides)
        spec = SweepSpec(
            store=opened,
            recipe=settings,
            out=Path(folder),
            keeps=tuple(float(keep) for keep in keeps.split(",")),
            arms=("kd",),
            seeds=tuple(range(seeds)),
            teacher=loaded,
            teacher_info=describe_teacher(teacher, loaded),
        )
        writer: csv.DictWriter[str] | None = None
        for alpha in map(float, alphas.split(",")):
            recipe_at = replace(settings, distill=replace(settings.distill, alpha=alpha))
            at = replace(spec, recipe=recipe_at, out=Path(folder) / f"alpha{alpha:g}")
            run_sweep(at, world)
            for group in summarize_sweep(read_sweep(at.out)).groups:
                assert group.top1 is not None
                row = {
                    "date": machine["started"],
                    "store": store.name,
                    "samples": len(opened.split("train")),
                    "model": settings.model.name,
                    "teacher": loaded.card.model,
                    "epochs": settings.epochs,
                    "temperature": settings.distill.temperature,
                    "keep": group.keep,
                    "alpha": alpha,
                    "top1": round(group.top1.mean, 5),
                    "top1_sd": None if group.top1.sd is None else round(group.top1.sd, 5),
                    "seeds": group.top1.n,
                    "processor": machine["processor"],
                    "cores": machine["cores"],
                    "versions": ";".join(f"{k}={v}" for k, v in machine["versions"].items()),
                    "command": machine["command"],
                }
                click.echo(
                    f"keep {group.keep:g} alpha {alpha:g}: top-1 {group.top1.mean:.2%} +- {group.top1.sd or 0:.2%}"
                )
                if writer is None:
                    writer = csv.DictWriter(file, list(row))
                    if fresh:
                        writer.writeheader()
                writer.writerow(row)


if __name__ == "__main__":
    main()
