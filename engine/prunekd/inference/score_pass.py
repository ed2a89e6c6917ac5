"""One teacher pass over a store's training split, for every teacher-derived score at once."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from prunekd.common.distributed import World
from prunekd.distill import OnlineTeacher
from prunekd.input import Batch, EpochPlan, Reader, eval_plan, open_reader
from prunekd.input.prefetch import on_device
from prunekd.input.views import ViewSettings
from prunekd.pruning.parquet import made_for
from prunekd.pruning.scores import FEATURE_SCORES, SCORES, Scores, compute_scores
from prunekd.pruning.scores.compute import choose
from prunekd.pruning.scores.features import describe_features
from prunekd.store import Store

LOGITS = "logits"  # every score that needs logits alone
GROUPS = {
    LOGITS: [name for name, score in SCORES.items() if not score.needs_features],
    "all": [*SCORES, *FEATURE_SCORES],
}


def score_names(names: str | Sequence[str]) -> list[str]:
    """Names of scores, with the groups `logits` (scores that need logits alone) and `all` written out."""
    return [name for part in ([names] if isinstance(names, str) else names) for name in GROUPS.get(part, [part])]


def score_store(
    store: Store,
    teacher: OnlineTeacher,
    view: ViewSettings,
    world: World,
    *,
    names: Sequence[str],
    features: Path | None = None,
    scratch: Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
    reader: str = "native",
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Score every training sample of `store` on one view each; a collective call that gives all processes the same.

    Args:
        view: the centre view of a recipe, or its training view (P2 scores one random training view), which `seed`
            and the sample id then determine.
        features: where to write the teacher's features, float16 (n, F) in ascending order of id; None to keep none.
        scratch: a folder for features that are needed and not kept, shared by all processes; None for a temporary one.
        seed: of the view and of scores that draw.
        progress: called with samples done and in all, of this process.

    Raises:
        ValueError: the teacher does not fit the store; an unknown score name; features that it cannot offer.
    """
    teacher.check_fits(store.classes)
    split = store.split("train")
    started = time.perf_counter()
    batch_scores, feature_scores = choose(names)
    wanted = bool(features or feature_scores) or any(score.needs_features for score in batch_scores)

    def forward(images: Tensor) -> tuple[Tensor, Tensor | None]:
        if not wanted:
            return teacher(images), None
        found, logits = teacher.features_and_logits(images)
        return logits, found

    plan = eval_plan(split, batch_size=batch_size, view=view, seed=seed, world_size=world.size, rank=world.rank)
    with (
        open_reader(reader, store, "train", workers=workers, pin=world.device.type == "cuda") as source,
        tempfile.TemporaryDirectory(dir=scratch) as folder,
    ):
        first = next(on_device(source.epoch(plan), world.device))
        teacher.prepare(first.images, len(plan))
        scores = compute_scores(
            _batches(source, plan, world, progress),
            forward,
            names,
            len(store.classes),
            features=features or (Path(folder) / "features.npy" if feature_scores else None),
            rank=world.rank,
            gather=world.gather_rows,
            seed=seed,
        )
    origin = {**made_for(store, "train"), "teacher": teacher.describe(), "view": view.to_dict(), "seed": seed}
    if features and world.is_main:
        describe_features(features, origin)
    world.barrier()
    scores.provenance.update(**origin, seconds=time.perf_counter() - started)
    return scores


def _batches(source: Reader, plan: EpochPlan, world: World, progress: Callable[[int, int], None]) -> Iterator[Batch]:
    done = 0
    for batch in on_device(source.epoch(plan), world.device):
        yield batch
        done += len(batch.ids)
        progress(done, len(plan.ids))
