"""Scores: by a teacher, from a file, or the mean of several."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from prunekd.api.stores import AnyStore, open_store
from prunekd.api.teachers import Device, TeacherLike, device_of
from prunekd.common.distributed import open_world
from prunekd.distill.opening import as_teacher
from prunekd.inference.score_pass import LOGITS, score_names, score_store
from prunekd.input.views import ViewSettings
from prunekd.pruning.scores import Scores, as_scores, imported
from prunekd.pruning.scores.average import average_scores
from prunekd.pruning.scores.score import HardEnd
from prunekd.training import Recipe
from prunekd.training.recipe import as_recipe

logger = logging.getLogger(__name__)


def score(
    store: AnyStore,
    teacher: TeacherLike,
    *,
    names: str | Sequence[str] = LOGITS,
    view: str = "center",
    recipe: Recipe | str | Path | None = None,
    features: str | Path | None = None,
    scratch: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
    workers: int | None = None,
    device: Device = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score every training sample of a store in one pass of a teacher.

    Processes of one process group share the work; every one of them must call this and gets all scores.

    Args:
        store: a Store or its path.
        teacher: as `open_teacher` takes it; one that is not open yet runs in float32.
        names: names of scores, or `logits` (those that need logits alone) or `all`.
        view: `center`, the evaluation view, or `train`, one seeded training view of the recipe.
        recipe: says the views; None scores a center view at the teacher's own size.
        features: file for the teacher's features, a NumPy array float16 (n, F) in ascending order of id; None
            keeps none.
        scratch: folder for features that are needed and not kept; None is the system's temporary folder.
        seed: of the training view and of scores that draw.
        batch_size: images per forward pass.
        workers: decoding threads; None for one per core.
        device: `auto`, `cpu`, `cuda` or a torch.device.
        progress: called with samples done and in all of this process.

    Returns:
        One float per sample and score, ids int64 (n,) ascending; `.save(path)` writes Parquet.

    Raises:
        ValueError: the teacher does not fit the store, an unknown score, or features that the teacher does not have.

    Example:
        scores = prunekd.score("store", "teacher")
        print(scores["teacher_ce"].mean())
    """
    store = open_store(store)
    if view not in ("center", "train"):
        raise ValueError(f"view is {view!r}; it must be center or train")
    if view == "train" and recipe is None:
        raise ValueError("view is train and no recipe is given; give the recipe (--recipe) that says its views")
    with open_world(device_of(teacher, device)) as world:
        opened = as_teacher(teacher, store.classes, precision="fp32", device=world.device)
        if recipe is not None:
            settings = as_recipe(recipe)
            shown = settings.train_view if view == "train" else settings.eval_view
        else:
            shown = ViewSettings(kind="center", size=opened.card.size)
        return score_store(
            store,
            opened,
            shown,
            world,
            names=score_names(names),
            features=None if features is None else Path(features),
            scratch=None if scratch is None else Path(scratch),
            seed=seed,
            batch_size=batch_size,
            workers=workers,
            progress=progress or _silent,
        )


def import_scores(
    store: AnyStore,
    file: str | Path,
    column: str,
    *,
    key: str = "path",
    key_column: str | None = None,
    hard_end: HardEnd = "high",
    name: str | None = None,
    fill: float | None = None,
) -> Scores:
    """Join a column of a CSV, TSV or Parquet file to the training samples of a store.

    Args:
        store: a Store or its path.
        file: has one row per sample.
        column: the score's column; a number counts columns from 0 in a file without a header line.
        key: join on `path` (whole, then `class/file.jpg`, then the file's name) or `id`.
        key_column: column of paths or ids; None looks for a usual name.
        hard_end: `high` or `low`, the end of the score where the hard samples are.
        name: of the score; None for the column's.
        fill: score of samples that the file lacks; None refuses them.

    Raises:
        ValueError: a file or column that cannot be read, a key that stands twice, or samples without a score.

    Example:
        from prunekd.api.scoring import import_scores
        scores = import_scores("store", "scores.parquet", "teacher_ce", key="id", name="difficulty")
    """
    scores, joined = imported.import_scores(
        open_store(store),
        Path(file),
        column,
        key=key,
        key_column=key_column,
        hard_end=hard_end,
        name=name,
        fill=fill,
    )
    logger.info(str(joined))
    return scores


def merge_scores(store: AnyStore, tables: Sequence[Scores | str | Path]) -> Scores:
    """Average scores over files, as EL2N is averaged over several runs.

    Args:
        store: a Store or its path.
        tables: two or more Scores or paths, of the same samples.

    Returns:
        The mean of each score that all have.

    Raises:
        ValueError: fewer than two, other samples, another store, or no score in common.

    Example:
        from prunekd.api.scoring import merge_scores
        mean = merge_scores("store", [prunekd.score("store", "teacher"), "scores.parquet"])
    """
    named = {str(table) if isinstance(table, (str, Path)) else f"scores {at}": table for at, table in enumerate(tables)}
    scores = average_scores({name: as_scores(table) for name, table in named.items()})
    scores.check(open_store(store))
    return scores


def _silent(done: int, total: int) -> None:
    pass
