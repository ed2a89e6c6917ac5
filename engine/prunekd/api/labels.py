"""Soft labels: a teacher's logits, computed once for many runs."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prunekd.api.stores import AnyStore, AnySubset, open_store
from prunekd.api.teachers import Device, TeacherLike, device_of
from prunekd.common.distributed import open_world
from prunekd.distill import BreakEven, CachedTeacher, OnlineTeacher
from prunekd.distill.labels_file import read_info
from prunekd.distill.opening import PRECISIONS, as_teacher
from prunekd.distill.teacher import MODULE
from prunekd.inference import label_pass
from prunekd.inference.label_pass import LabelCheck, LabelSpec, choose_topk
from prunekd.pruning import as_subset
from prunekd.training import Recipe
from prunekd.training.recipe import Settings, as_recipe

logger = logging.getLogger(__name__)


def make_labels(
    store: AnyStore,
    teacher: TeacherLike,
    *,
    recipe: Recipe | str | Path,
    out: str | Path,
    views: int = 8,
    topk: int | str | None = None,
    subset: AnySubset | None = None,
    seed: int | None = None,
    temperature: float | None = None,
    settings: Settings | None = None,
    runs: int = 1,
    batch_size: int = 256,
    reader: str = "native",
    workers: int | None = None,
    device: Device = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> CachedTeacher:
    """Compute a teacher's soft labels for some views of each training sample, and open them.

    Epoch e of a run with these labels shows view e mod `views`. A killed attempt goes on when this is called again.
    Processes of one process group share the work; every one of them must call this.

    Args:
        store: a Store or its path.
        teacher: as `open_teacher` takes it; one that is not open yet runs in bfloat16.
        recipe: of the runs to come: a name, a YAML file or a Recipe; its training views, seed and temperature count.
        out: folder to write, on a file system that all processes share.
        views: views per sample.
        topk: logits to keep per view, or `full`; None keeps all up to 100 classes, then 20.
        subset: label these samples alone: a Subset, its path, or ids int64 (k,).
        seed: of the views; None for the recipe's.
        temperature: of the stored logsumexp; None for the recipe's.
        settings: changes of the recipe by dotted key.
        runs: how many runs will use the labels; the log says whether making them pays.
        batch_size: images per forward pass.
        reader: a key of prunekd.input.READERS.
        workers: decoding threads; None for one per core.
        device: `auto`, `cpu`, `cuda` or a torch.device.
        progress: called with records done and in all of this process in this attempt.

    Raises:
        ValueError: the folder exists, the teacher does not fit the store, an unfinished attempt had other settings, or
            logits that are not finite.

    Example:
        labels = prunekd.make_labels("store", "teacher", recipe="demo", out="soft-labels", views=2)
        print(labels.views, labels.num_classes)
    """
    store = open_store(store)
    given = {"seed": seed, "distill.temperature": temperature}
    settings = {**(settings or {}), **{key: value for key, value in given.items() if value is not None}}
    resolved = as_recipe(recipe, settings)
    keep, reason = choose_topk(topk, len(store.classes))
    out = Path(out)
    with open_world(device_of(teacher, device)) as world:
        spec = LabelSpec(
            store=store,
            teacher=as_teacher(teacher, store.classes, device=world.device),
            recipe=resolved,
            views=views,
            topk=keep,
            subset=None if subset is None else as_subset(store, subset),
        )
        ids = spec.ids
        if world.is_main:
            logger.info(f"{len(ids)} samples x {views} views of seed {resolved.seed}, {reason}")
            logger.info(str(BreakEven(views=views, epochs=resolved.epochs, runs=runs)))
        label_pass.make_labels(
            spec,
            world,
            out,
            batch_size=batch_size,
            reader=reader,
            workers=workers,
            progress=progress or (lambda done, total: None),
        )
        world.barrier()  # the main process has given the folder its name
        return CachedTeacher.open(out, store, ids=ids, pin=world.device.type == "cuda")


def verify_labels(
    store: AnyStore,
    labels: CachedTeacher | str | Path,
    *,
    teacher: TeacherLike | None = None,
    records: int = 256,
    seed: int = 0,
    batch_size: int = 256,
    workers: int | None = None,
    device: Device = "auto",
) -> LabelCheck:
    """Compute some soft labels anew and compare them with what is stored.

    Args:
        store: a Store or its path.
        labels: a CachedTeacher or its folder.
        teacher: the one that made them, as `open_teacher` takes it; None opens the one that the labels name.
        records: how many to compare, drawn from all samples and up to eight views with `seed`.
        batch_size: images per forward pass.
        workers: decoding threads; None for one per core.
        device: `auto`, `cpu`, `cuda` or a torch.device.

    Returns:
        How many were compared, and the worst and median difference in stds of a record's logits.

    Raises:
        ValueError: labels of another store or teacher, or made by a module, which must be given.
        RuntimeError: a soft label that differs by more than rounding explains.

    Example:
        labels = prunekd.make_labels("store", "teacher", recipe="demo", out="soft-labels", views=2)
        from prunekd.api.labels import verify_labels
        print(verify_labels("store", labels, records=16))
    """
    store = open_store(store)
    path = labels.path if isinstance(labels, CachedTeacher) else Path(labels)
    made_by = read_info(path)["teacher"]
    if teacher is None and made_by["spec"] == MODULE:
        raise ValueError(
            f"the soft labels {path} were made by a module ({made_by['model']}), which no path names; give "
            "teacher=prunekd.open_teacher(module, store, mean=..., std=..., classes=...)"
        )
    names = {str(dtype).removeprefix("torch."): name for name, dtype in PRECISIONS.items()}
    with open_world(device_of(teacher, device)) as world:
        opened: OnlineTeacher = as_teacher(
            made_by["spec"] if teacher is None else teacher,
            store.classes,
            precision=names.get(made_by["dtype"], "bf16"),
            size=made_by["shown_at"],
            compile="off",
            device=world.device,
        )
        return label_pass.verify_labels(
            path, store, opened, records=records, seed=seed, batch_size=batch_size, workers=workers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSummary:
    """Size and cost of soft labels: bytes on disk, seconds of the last attempt, and whether making them pays."""

    out: str
    records: int
    bytes: int
    seconds: float
    break_even: dict[str, bool | int | str]

    def __str__(self) -> str:
        return f"{self.records} soft labels in {self.seconds:.1f} s, {self.bytes / 2**20:.1f} MiB\n{self.out}"


def summarize_labels(labels: CachedTeacher, recipe: Recipe, runs: int) -> LabelSummary:
    """Size and cost of finished soft labels, for so many runs of a recipe that will use them."""
    balance = BreakEven(views=labels.views, epochs=recipe.epochs, runs=runs)
    return LabelSummary(
        out=str(labels.path),
        records=len(labels.ids) * labels.views,
        bytes=sum(file.stat().st_size for file in labels.path.iterdir()),
        seconds=labels.info["seconds"],
        break_even={"pays": balance.pays, "from_runs": balance.from_runs, "text": str(balance)},
    )
