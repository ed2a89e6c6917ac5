"""One teacher pass over a store's training split, for every teacher-derived score at once."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from prunekd.distill import OnlineTeacher
from prunekd.input import Batch, eval_plan, open_reader
from prunekd.input.views import ViewSettings
from prunekd.pruning.parquet import made_for
from prunekd.pruning.scores import Scores, compute_scores
from prunekd.store.index import Store
from prunekd.training.distributed import World


def score_store(
    store: Store,
    teacher: OnlineTeacher,
    teacher_info: dict[str, Any],
    view: ViewSettings,
    world: World,
    *,
    names: Sequence[str],
    seed: int = 0,
    batch_size: int = 256,
    reader: str = "native",
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Score every training sample of `store` on one view each.

    Args:
        view: the centre view of a recipe, or its training view (P2 scores one random training view), which `seed`
            and the sample id then determine.
        progress: called with samples done and in all.

    Raises:
        ValueError: the teacher does not fit the store; an unknown score name.
    """
    teacher.check_fits(store.classes)
    split = store.split("train")
    started = time.perf_counter()
    with open_reader(reader, store, "train", workers=workers, pin=world.device.type == "cuda") as source:
        plan = eval_plan(split, batch_size=batch_size, view=view, seed=seed)

        def batches() -> Iterator[Batch]:
            done = 0
            for batch in source.epoch(plan):
                yield batch
                done += len(batch.ids)
                progress(done, len(split))

        def forward(images: Tensor) -> Tensor:
            return teacher(images.to(world.device, non_blocking=True))

        scores = compute_scores(batches(), forward, names, len(store.classes))
    scores.provenance.update(
        **made_for(store, "train"),
        teacher=teacher_info,
        view=view.to_dict(),
        seed=seed,
        seconds=time.perf_counter() - started,
    )
    return scores
