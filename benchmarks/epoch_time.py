"""Does an epoch at keep r cost r of an epoch on everything?

Trains the same recipe at several keep ratios in one process, the runs taking turns epoch by epoch, and fits
    epoch seconds = a * r + c
to the median epochs; c is what an epoch costs without any sample. seen_share is what is left of r when the last batch,
which is not full, is dropped. One row per keep ratio is appended to
benchmarks/results/epoch_time.csv. Without STORE, photographs are made up (smooth 160 x 120 JPEGs).

    python benchmarks/epoch_time.py
    python benchmarks/epoch_time.py STORE --recipe photos --teacher RUN
"""

import tempfile
from pathlib import Path
from statistics import mean

import click
import numpy as np
from PIL import Image

from prunekd.common.distributed import open_world
from prunekd.distill import TeacherSettings, open_teacher
from prunekd.reporting.aggregate import summarize_sweep
from prunekd.reporting.results import read_sweep
from prunekd.store import Store, open_store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from prunekd.sweep.run import SweepSpec, run_sweep
from prunekd.training import load_recipe
from recording import RESULTS, append_rows, circumstances


@click.command()
@click.argument("store", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--recipe", default="photos", show_default=True)
@click.option("--teacher", help="Distil from this teacher [default: labels alone].")
@click.option("--keep", "keeps", default="1,0.5,0.25", show_default=True)
@click.option("--epochs", default=6, show_default=True)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
def main(
    store: Path | None, recipe: str, teacher: str | None, keeps: str, epochs: int, overrides: tuple[str, ...]
) -> None:
    """Measure and append; see the module's text."""
    with tempfile.TemporaryDirectory() as folder, open_world() as world:
        opened = open_store(store) if store else made_up(Path(folder))
        loaded = open_teacher(teacher, opened.classes, TeacherSettings(device=world.device)) if teacher else None
        spec = SweepSpec(
            store=opened,
            recipe=load_recipe(recipe, [f"epochs={epochs}", f"eval.every_epochs={epochs}", *overrides]),
            out=Path(folder) / "sweep",
            keeps=tuple(float(keep) for keep in keeps.split(",")),
            arms=("kd",) if loaded else ("plain",),
            teacher=loaded,
        )
        run_sweep(spec, world, progress=lambda run, v: click.echo(f"{run.name} {v['kind']} {v['epoch']}", err=True))
        report(spec)


def made_up(folder: Path, count: int = 1024, classes: int = 8) -> Store:
    """A store of smooth photographs of no meaning."""
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("val", count // 8)):
        for k in range(number):
            path = folder / "source" / split / f"class{k % classes}" / f"{k:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, size=(12, 16, 3), dtype=np.uint8))
            coarse.resize((160, 120), Image.Resampling.BICUBIC).save(path, quality=90)
    return convert(open_source(folder / "source"), folder / "store", ConvertSettings())


def report(spec: SweepSpec) -> None:
    """Print the fit and append its rows."""
    summary = summarize_sweep(read_sweep(spec.out))
    (fit,) = summary.fits
    full = summary.find(fit.arm, 1.0)
    assert full is not None
    seen_full = mean((run.samples_seen or 0) / run.epochs for run in full.runs)
    rows = []
    for group in summary.groups:
        epoch = group.epoch_seconds
        share = min(fit.residuals, key=lambda s: abs(s - group.kept_share))
        rows.append(
            {
                "arm": fit.arm,
                "model": spec.recipe.model.name,
                "size": spec.recipe.train_view.size,
                "samples": len(spec.store.split("train")),
                "keep": group.keep,
                "seen_share": round(mean((run.samples_seen or 0) / run.epochs for run in group.runs) / seen_full, 4),
                "epoch_seconds_median": round(epoch.median, 4),
                "epoch_seconds_iqr": f"{epoch.q1:.4f}-{epoch.q3:.4f}",
                "epochs": epoch.n,
                "ratio_to_full": round(epoch.median / full.epoch_seconds.median, 4),
                "fit_a_seconds": round(fit.slope, 4),
                "fit_c_seconds": round(fit.constant, 4),
                "fit_residual_percent": round(fit.residuals[share], 2),
                **circumstances(),
            }
        )
        click.echo(
            {
                k: rows[-1][k]
                for k in ("keep", "seen_share", "epoch_seconds_median", "ratio_to_full", "fit_residual_percent")
            }
        )
    click.echo(f"epoch seconds = {fit.slope:.3f} r + {fit.constant:.3f}")
    append_rows(RESULTS / "epoch_time.csv", rows)


if __name__ == "__main__":
    main()
