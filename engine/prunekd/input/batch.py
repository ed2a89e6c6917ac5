"""What every reader yields."""

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from prunekd.input.plan import BatchPlan, EpochPlan

if TYPE_CHECKING:
    from prunekd.input.faults import Faults


class Batch(NamedTuple):
    """images uint8 (B, 3, H, W) in channels-last memory; labels, ids int64 (B,); weights float32 (B,) or None."""

    images: Tensor
    labels: Tensor
    ids: Tensor
    weights: Tensor | None


class Reader(Protocol):
    """Turns plans into batches, for as many epochs as wanted; the samples may change from plan to plan.

    bytes_read counts bytes asked of the storage, payload_bytes those of the samples planned; `faults` keeps account of
    corrupt samples.
    """

    name: str
    faults: "Faults"
    bytes_read: int
    payload_bytes: int

    def epoch(self, plan: EpochPlan) -> Iterator[Batch]:
        """Yield the plan's batches in order. Leaving the loop early is fine."""
        ...

    def close(self) -> None:
        """Free threads, processes and files."""
        ...

    def __enter__(self) -> "Reader": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_batch(plan: EpochPlan, batch: BatchPlan, images_nhwc: Tensor) -> Batch:
    """Put the images (B, H, W, 3) of a planned batch together with its labels, ids and weights."""
    return Batch(
        images=images_nhwc.permute(0, 3, 1, 2),
        labels=torch.from_numpy(plan.split.labels[batch.rows]),
        ids=torch.from_numpy(batch.ids.copy()),
        weights=None if batch.weights is None else torch.from_numpy(batch.weights.copy()),
    )
