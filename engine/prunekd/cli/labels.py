"""`prunekd labels`."""

from dataclasses import asdict
from pathlib import Path

import click

from prunekd.cli._shared import DEVICE, JSON, STORE, WORKERS, counting_bar, emit
from prunekd.cli._teacher import TEACHER_HELP, teacher_options


@click.command("labels")
@STORE
@click.option("--teacher", help=TEACHER_HELP)
@click.option("--recipe", help="The recipe of the runs to come: its training views, seed and temperature.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the soft labels.")
@click.option("--views", type=click.IntRange(min=1), default=8, show_default=True, help="Views per sample.")
@click.option("--topk", metavar="K|full", help="Logits to keep per view [default: full up to 100 classes, then 20].")
@click.option(
    "--subset", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Label these samples alone."
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of the views [default: the recipe's].")
@click.option("--temperature", type=float, help="Of the stored logsumexp [default: the recipe's].")
@click.option("--runs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs that will use the labels.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe.")
@click.option("--batch-size", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--reader", default="native", show_default=True, help="Which reader feeds the teacher.")
@click.option(
    "--verify",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="LABELS",
    help="Make nothing; compute some records of LABELS anew and compare.",
)
@click.option("--records", type=click.IntRange(min=1), default=256, show_default=True, help="How many to verify.")
@teacher_options("bf16")
@DEVICE
@WORKERS
@JSON
def command(
    *,
    store: Path,
    teacher: str | None,
    recipe: str | None,
    out: Path | None,
    views: int,
    topk: str | None,
    subset: Path | None,
    seed: int | None,
    temperature: float | None,
    runs: int,
    overrides: tuple[str, ...],
    batch_size: int,
    reader: str,
    verify: Path | None,
    records: int,
    teacher_precision: str,
    teacher_size: str | None,
    teacher_compile: str,
    device: str,
    workers: int | None,
    as_json: bool,
) -> None:
    """Compute a teacher's soft labels for STORE once, so that runs need no teacher.

    Epoch e of such a run shows view e mod --views of each sample. A killed attempt goes on when the command is given
    again; under torchrun the processes share the work.

    \b
    Example:
      prunekd labels store --teacher teacher --recipe photos --views 8 --out labels
      prunekd labels store --verify labels
      prunekd train store --recipe photos --labels labels --out student
    """
    from prunekd.api.labels import make_labels, summarize_labels, verify_labels
    from prunekd.api.teachers import open_teacher
    from prunekd.common.distributed import open_world
    from prunekd.training.recipe import as_recipe, parse_settings

    if (out is None) == (verify is None):
        raise ValueError("give --out LABELS to make soft labels, or --verify LABELS to check some")
    with open_world(device) as world:
        if verify is not None:
            check = verify_labels(
                store,
                verify,
                teacher=teacher,
                records=records,
                seed=seed or 0,
                batch_size=batch_size,
                workers=workers,
                device=world.device,
            )
            facts, text = asdict(check), str(check)
        else:
            assert out is not None
            if teacher is None or recipe is None:
                raise ValueError(f"making soft labels needs --{'teacher' if teacher is None else 'recipe'}")
            resolved = as_recipe(recipe, parse_settings(overrides))
            with counting_bar("labels", "records") as progress:
                made = make_labels(
                    store,
                    open_teacher(
                        teacher,
                        store,
                        precision=teacher_precision,
                        size=teacher_size,
                        compile=teacher_compile,
                        device=world.device,
                    ),
                    recipe=resolved,
                    out=out,
                    views=views,
                    topk=topk,
                    subset=subset,
                    seed=seed,
                    temperature=temperature,
                    runs=runs,
                    batch_size=batch_size,
                    reader=reader,
                    workers=workers,
                    device=world.device,
                    progress=progress,
                )
            summary = summarize_labels(made, resolved, runs)
            facts, text = asdict(summary), str(summary)
        if world.is_main:
            emit(facts, as_json, text)
