"""`prunekd labels`."""

from pathlib import Path
from typing import Any

import click

from prunekd.cli._shared import DEVICE, JSON, STORE, WORKERS, emit, progress_bar, say
from prunekd.cli._teacher import TEACHER_HELP, open_teacher_with, teacher_options


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
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the views [default: the recipe's].")
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
def command(**options: Any) -> None:
    """Compute a teacher's soft labels for STORE once, so that runs need no teacher.

    Epoch e of such a run shows view e mod --views of each sample. A killed attempt goes on when the command is given
    again; under torchrun the processes share the work.

    \b
    Example:
      prunekd labels store --teacher teacher --recipe photos --views 8 --out labels
      prunekd labels store --verify labels
      prunekd train store --recipe photos --labels labels --out student
    """
    from prunekd.common.distributed import open_world

    making = options["out"] is not None
    if making == (options["verify"] is not None):
        raise ValueError("give --out LABELS to make soft labels, or --verify LABELS to check some")
    with open_world(options["device"]) as world:
        if making:
            _make(world, **options)
        else:
            _verify(world, **options)


def _make(world: Any, **options: Any) -> None:
    from prunekd.distill import BreakEven
    from prunekd.inference.label_pass import LabelSpec, choose_topk, make_labels
    from prunekd.pruning.subset import read_subset
    from prunekd.store import open_store
    from prunekd.training import load_recipe

    for name in ("teacher", "recipe"):
        if options[name] is None:
            raise ValueError(f"making soft labels needs --{name}")
    given = {"seed": options["seed"], "distill.temperature": options["temperature"]}
    overrides = [*options["overrides"], *(f"{key}={value}" for key, value in given.items() if value is not None)]
    recipe = load_recipe(options["recipe"], overrides)
    store = open_store(options["store"])
    topk, kept = choose_topk(options["topk"], len(store.classes))
    teacher, info = open_teacher_with(options, options["teacher"], store.classes, world.device)
    spec = LabelSpec(
        store=store,
        teacher=teacher,
        teacher_info=info,
        recipe=recipe,
        views=options["views"],
        topk=topk,
        subset=read_subset(options["subset"]) if options["subset"] else None,
    )
    balance = BreakEven(views=spec.views, epochs=recipe.epochs, runs=options["runs"])
    total = len(spec.ids) * spec.views
    if world.is_main:
        say(f"{len(spec.ids)} samples x {spec.views} views of seed {recipe.seed}, {kept}")
        say(str(balance))
    with progress_bar(-(-total // world.size), "labels") as update:
        info = make_labels(
            spec,
            world,
            options["out"],
            batch_size=options["batch_size"],
            reader=options["reader"],
            workers=options["workers"],
            progress=lambda done, _total: update(done, "records"),
        )
    if world.is_main:
        size = sum(file.stat().st_size for file in options["out"].iterdir())
        summary = {
            "out": str(options["out"]),
            "records": total,
            "bytes": size,
            "seconds": info["seconds"],
            "break_even": {"pays": balance.pays, "from_runs": balance.from_runs, "text": str(balance)},
        }
        text = f"{total} soft labels in {info['seconds']:.1f} s, {size / 2**20:.1f} MiB\n{options['out']}"
        emit(summary, options["as_json"], text)


def _verify(world: Any, **options: Any) -> None:
    import torch

    from prunekd.distill import TeacherSettings, open_teacher
    from prunekd.distill.labels_file import read_info
    from prunekd.inference.label_pass import TOLERANCE, verify_labels
    from prunekd.store import open_store

    store = open_store(options["store"])
    made_by = read_info(options["verify"])["teacher"]
    settings = TeacherSettings(
        dtype=getattr(torch, made_by["dtype"], torch.bfloat16), size=made_by["shown_at"], device=world.device
    )
    teacher = open_teacher(options["teacher"] or made_by["spec"], store.classes, settings)
    facts = verify_labels(
        options["verify"],
        store,
        teacher,
        records=options["records"],
        seed=options["seed"] or 0,
        batch_size=options["batch_size"],
        workers=options["workers"],
    )
    text = (
        f"{facts['records']} records computed anew: they differ by {facts['worst']:.1e} std of a logit at most, "
        f"{facts['median']:.1e} in the median (limit {TOLERANCE})"
    )
    if world.is_main:
        emit(facts, options["as_json"], text)
