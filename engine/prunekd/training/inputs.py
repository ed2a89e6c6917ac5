"""Inputs of a run from what people hold: paths or open objects."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from prunekd.distill import CachedTeacher
from prunekd.pruning import Subset
from prunekd.pruning.scores import Scores, as_scores
from prunekd.store import Store
from prunekd.training.settings import Recipe

logger = logging.getLogger(__name__)


def as_labels(
    labels: CachedTeacher | str | Path, store: Store, recipe: Recipe, subset: Subset | None, device: torch.device
) -> CachedTeacher:
    """Open soft labels, by path or again, checked against the views and samples of a run on `device`.

    Raises:
        ValueError: as CachedTeacher.open.
    """
    cached = CachedTeacher.open(
        labels.path if isinstance(labels, CachedTeacher) else Path(labels),
        store,
        view=recipe.train_view,
        ids=None if subset is None else subset.ids,
        mixed=recipe.mix.on,
        pin=device.type == "cuda",
    )
    logger.info(f"soft labels: {cached!r}")
    return cached


def class_scale(scores: Scores | str | Path, store: Store) -> Tensor:
    """Class statistics, float32 (C,), that P2's logit reshaping takes from the scores of this store.

    Raises:
        ValueError: the scores are of another store, or have no such statistics.
    """
    return torch.from_numpy(as_scores(scores).class_scale(store))
