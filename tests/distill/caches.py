"""A cache of soft labels in memory, for tests of what uses one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from prunekd.distill import CachedTeacher
from prunekd.input import EpochPlan, ViewSettings, open_reader
from prunekd.store import Store


def cached_teacher(
    store: Store, network: Callable[[Tensor], Tensor], view: ViewSettings, views: int = 3, seed: int = 5
) -> CachedTeacher:
    """All logits of `network`, which takes uint8 images, for some views of every training sample."""
    split = store.split("train")
    logits = []
    with open_reader("native", store, workers=1) as reader:
        for index in range(views):
            plan = EpochPlan(split=split, ids=split.ids, batch_size=len(split), view=view, seed=seed, view_index=index)
            (batch,) = reader.epoch(plan)
            logits.append(network(batch.images).detach().half().numpy())
    info = {"views": views, "seed": seed, "classes": logits[0].shape[1], "topk": None, "temperature": 1.0}
    return CachedTeacher(Path("labels"), info, {"sample_ids": split.ids, "logits": np.stack(logits)})
