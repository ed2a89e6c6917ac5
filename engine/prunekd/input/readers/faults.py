"""What a reader does with a sample that turns out corrupt while a run is under way.

A choice, the same in every reader: stop, put another kept sample in its place, or leave it out. Which one takes a place
is a pure function of the plan and the failed id, so it depends neither on the reader nor on the number of workers or
processes.
"""

from collections.abc import Iterator, Mapping
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from prunekd.common.philox import REPLACE, random_keys
from prunekd.input.plan import BatchPlan, EpochPlan
from prunekd.input.readers.batch import Batch, make_batch
from prunekd.input.readers.decode import ViewDecoder
from prunekd.store import Payloads, Split

ON_ERROR = ("raise", "replace", "skip")
TRIES = 16  # candidates of the same class, then as many of any class


class Faults:
    """Corrupt samples of a split as a reader meets them.

    Args:
        payloads: where replacements are read from.
        on_error: `raise`: a ValueError names the sample. `replace`: a kept sample of the same class takes its place,
            with its own id, label and weight and the view planned for it; it may then be seen twice in the epoch. The
            candidates are tried in an order drawn from (seed, view index, failed id) until one can be decoded, at
            most 16 of the same class, then at most 16 of any class. `skip`: the batch gets shorter.

    Attributes:
        counts: samples `replaced` and `skipped` so far.
        seen: why a sample could not be used, by id; replacements that failed as well are among them.

    Raises:
        ValueError: on_error is none of the three.
    """

    def __init__(self, split: Split, payloads: Payloads, on_error: str = "raise") -> None:
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error is {on_error!r}; it must be one of {', '.join(ON_ERROR)}")
        self.on_error = on_error
        self.counts = {"replaced": 0, "skipped": 0}
        self.seen: dict[int, str] = {}
        self._split, self._decoder = split, ViewDecoder(split, payloads)

    def __repr__(self) -> str:
        return f"Faults({self.on_error!r}, {self.counts})"

    def settle(self, plan: EpochPlan, batch: BatchPlan, images_nhwc: Tensor, failures: Mapping[int, str]) -> Batch:
        """Make the batch of what was decoded and of what was not.

        Args:
            images_nhwc: uint8 (B, size, size, 3); the pixels of failed samples may be anything. Changed in place.
            failures: reasons by position in the batch; none is the usual case.

        Raises:
            ValueError: a failure, with `raise`; nothing that could take a sample's place; nothing left of a batch.
        """
        if not failures:
            return make_batch(plan, batch, images_nhwc)
        failed = sorted(failures)
        for k in failed:
            self.seen[int(batch.ids[k])] = failures[k]
        if self.on_error == "raise":
            self._raise(batch, failed[0], failures[failed[0]])
        if self.on_error == "skip":
            return self._without(plan, batch, images_nhwc, failed)
        return self._replaced(plan, batch, images_nhwc, failed)

    def _raise(self, batch: BatchPlan, position: int, reason: str) -> NoReturn:
        row, split = int(batch.rows[position]), self._split
        raise ValueError(
            f"sample {split.ids[row]} ({split.keys(np.array([row]))[0]}) in {split.path} cannot be decoded: {reason}; "
            "the store is damaged: convert the dataset again, or go on without the sample with on_error = replace "
            "or skip"
        )

    def _without(self, plan: EpochPlan, batch: BatchPlan, images: Tensor, failed: list[int]) -> Batch:
        good = np.delete(np.arange(len(batch.ids)), failed)
        if not len(good):
            raise ValueError(
                f"none of the {len(batch.ids)} samples of a batch can be decoded (the first: sample {batch.ids[0]}, "
                f"{self.seen[int(batch.ids[0])]}); {self._split.path} is damaged: convert the dataset again, or use "
                "on_error = replace"
            )
        self.counts["skipped"] += len(failed)
        images[: len(good)] = images[torch.from_numpy(good)]  # in place: the memory may be pinned
        return make_batch(plan, batch.take(good), images[: len(good)])

    def _replaced(self, plan: EpochPlan, batch: BatchPlan, images: Tensor, failed: list[int]) -> Batch:
        batch = batch.take(np.arange(len(batch.ids)))
        for k in failed:
            one = self._replacement(plan, int(batch.ids[k]), images[k].numpy())
            for column, value in zip(batch, one, strict=True):
                if column is not None and value is not None:
                    column[k] = value[0]
            self.counts["replaced"] += 1
        return make_batch(plan, batch, images)

    def _replacement(self, plan: EpochPlan, failed: int, out: np.ndarray) -> BatchPlan:
        """The plan of the sample that takes the failed one's place; its pixels are written into `out`."""
        for position in self._candidates(plan, failed):
            one = plan.candidate(position)
            try:
                self._decoder.read(int(one.rows[0]), one.boxes[0].tolist(), bool(one.flips[0]), out)
            except (ValueError, OSError) as error:
                self.seen[int(one.ids[0])] = str(error)
            else:
                return one
        raise ValueError(
            f"nothing can take the place of sample {failed} ({self.seen[failed]}): {TRIES} kept samples of its class "
            f"and {TRIES} of others were tried and are corrupt too; {self._split.path} is damaged: convert the dataset "
            "again"
        )

    def _candidates(self, plan: EpochPlan, failed: int) -> Iterator[int]:
        """Positions in plan.pool of what may take the failed sample's place, in the order of trying."""
        pool = plan.pool
        labels = self._split.labels[self._split.rows(pool)]
        label = self._split.labels[self._split.rows(np.array([failed]))]
        seed = (plan.seed + failed * 0x9E3779B97F4A7C15) % 2**64  # a failed sample's own order
        for among in (np.flatnonzero(labels == label), np.flatnonzero(labels != label)):
            keys = random_keys(seed, plan.view_index, REPLACE, pool[among])
            ranked = among[np.lexsort((pool[among], keys))]
            # What is known to be corrupt counts as tried, or else the choice would depend on what was met before.
            yield from (k for k in ranked[:TRIES].tolist() if int(pool[k]) not in self.seen)
