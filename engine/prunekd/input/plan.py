"""The plan: which sample with which view goes into which batch, for every reader alike."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from prunekd.common.philox import ORDER, random_keys
from prunekd.input.views import ViewSettings, views
from prunekd.store import Split


def order(seed: int, epoch: int, ids: np.ndarray, world_size: int = 1, rank: int = 0) -> np.ndarray:
    """The ids one rank visits in an epoch, int64.

    Ids are sorted by a random number of their own, so the order of a subset is the order of the whole restricted to
    it, whatever the order of `ids`. Rank r takes every `world_size`-th from the r-th on: the samples that the ranks
    together visit in a step do not depend on how many ranks there are.

    Raises:
        ValueError: an id named twice.
    """
    ids = np.asarray(ids, dtype=np.int64)
    return ids[_permutation(seed, epoch, ids)][rank::world_size]


def _permutation(seed: int, epoch: int, ids: np.ndarray) -> np.ndarray:
    keys = random_keys(seed, epoch, ORDER, ids)
    positions = np.argsort(keys)
    if len(keys) > 1 and (np.diff(keys[positions]) == 0).any():
        positions = np.lexsort((ids, keys))  # equal keys are ordered by id; about one plan in 10^7 at ImageNet's size
        _refuse_repeats(ids[positions])  # an id has one key, so an id named twice ends up here
    return positions


def _refuse_repeats(gathered: np.ndarray) -> None:
    """Raise ValueError for an id named twice, of ids int64 (n,) that stand side by side where they are equal."""
    repeated = gathered[1:][gathered[1:] == gathered[:-1]]
    if len(repeated):
        raise ValueError(f"the plan names {len(repeated)} ids more than once, such as {repeated[0]}; name each once")


class BatchPlan(NamedTuple):
    """One batch: ids int64 (B,), rows int64 (B,), boxes int32 (B, 4), flips bool (B,), weights float32 (B,) | None."""

    ids: np.ndarray
    rows: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray
    weights: np.ndarray | None

    def take(self, positions: np.ndarray) -> "BatchPlan":
        """A copy of what stands at these positions, int64 (n,)."""
        weights = None if self.weights is None else self.weights[positions]
        return BatchPlan(
            self.ids[positions], self.rows[positions], self.boxes[positions], self.flips[positions], weights
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpochPlan:
    """One rank's epoch as pure data.

    Attributes:
        ids: int64, in the order of visit; weights: float32 of the same length, or None.
        start_batch: batches before it have been seen already.
        kept: ids int64 of all ranks' samples and their weights, for what takes the place of a corrupt sample (see
            `faults`); None where this rank's are all there are.
    """

    split: Split
    ids: np.ndarray
    batch_size: int
    view: ViewSettings
    seed: int = 0
    view_index: int = 0
    weights: np.ndarray | None = None
    start_batch: int = 0
    kept: tuple[np.ndarray, np.ndarray | None] | None = None

    @property
    def end_batch(self) -> int:
        """Number of batches of the whole epoch; the last may be short."""
        return -(-len(self.ids) // self.batch_size)

    def __len__(self) -> int:
        """Batches still to come."""
        return max(0, self.end_batch - self.start_batch)

    def batch(self, number: int) -> BatchPlan:
        """Batch `number` of the epoch, counted from its beginning."""
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        return self._planned(self.ids[part], None if self.weights is None else self.weights[part])

    @property
    def pool(self) -> np.ndarray:
        """Ids, int64, among which a corrupt sample's replacement is sought."""
        return self.ids if self.kept is None else self.kept[0]

    def candidate(self, position: int) -> BatchPlan:
        """The sample at a position of `pool` as a batch of its own."""
        weights = self.weights if self.kept is None else self.kept[1]
        part = slice(position, position + 1)
        return self._planned(self.pool[part], None if weights is None else weights[part])

    def _planned(self, ids: np.ndarray, weights: np.ndarray | None) -> BatchPlan:
        rows = self.split.rows(ids)
        found = views(self.view, self.seed, self.view_index, ids, self.split.widths[rows], self.split.heights[rows])
        return BatchPlan(ids, rows, found.boxes, found.flips, weights)


def train_plan(
    split: Split,
    *,
    ids: np.ndarray | None,
    seed: int,
    epoch: int,
    batch_size: int,
    view: ViewSettings,
    weights: np.ndarray | None = None,
    world_size: int = 1,
    rank: int = 0,
    start_step: int = 0,
    shuffle: bool = True,
    drop_last: bool = True,
) -> EpochPlan:
    """Plan one rank's share of an epoch over `ids` (None: all), in batches of `batch_size` over all ranks together.

    Args:
        shuffle: draw the order from (seed, epoch); False keeps the order of `ids`.
        drop_last: leave out the samples that do not fill a last batch, other ones every epoch. With False the ranks'
            shares of the last batch differ by at most one sample.

    Raises:
        ValueError: an id named twice; not one full batch with `drop_last`; a batch that the ranks cannot share equally;
            or, where a shuffled epoch ends in a short batch, fewer samples in it than ranks.
    """
    ids = split.ids if ids is None else np.asarray(ids, dtype=np.int64)
    if batch_size % world_size:
        raise ValueError(f"batch_size {batch_size} is not divisible by the {world_size} processes")
    steps, rest = divmod(len(ids), batch_size)
    if drop_last and steps == 0:
        raise ValueError(f"{len(ids)} samples do not fill a batch of {batch_size}; lower batch_size or keep more")
    if shuffle and not drop_last and 0 < rest < world_size:
        # In an evaluation some ranks may well have a batch less; in training the others would wait for them.
        raise ValueError(
            f"the last batch of {len(ids)} samples in batches of {batch_size} has {rest} for {world_size} processes, "
            "so they would not take the same number of steps; use drop_last=True or another batch_size"
        )
    if shuffle:
        positions = _permutation(seed, epoch, ids)
    else:
        positions = np.arange(len(ids))
        _refuse_repeats(np.sort(ids))
    positions = positions[: steps * batch_size if drop_last else None][rank::world_size]
    weights = None if weights is None else np.asarray(weights, dtype=np.float32)
    return EpochPlan(
        split=split,
        ids=ids[positions],
        batch_size=batch_size // world_size,
        view=view,
        seed=seed,
        view_index=epoch,
        weights=None if weights is None else weights[positions],
        start_batch=start_step,
        kept=(ids, weights),
    )


def eval_plan(
    split: Split, *, batch_size: int, view: ViewSettings, seed: int = 0, world_size: int = 1, rank: int = 0
) -> EpochPlan:
    """Every sample of the split exactly once over all ranks, in row order; the last batch may be short or empty."""
    ids = split.ids
    batch_size = min(batch_size, max(1, -(-len(ids) // world_size)))  # readers allocate whole batches
    return EpochPlan(
        split=split, ids=ids[rank::world_size], batch_size=batch_size, view=view, seed=seed, kept=(ids, None)
    )
