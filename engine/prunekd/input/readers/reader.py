"""What a reader is."""

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol

from prunekd.input.plan import EpochPlan
from prunekd.input.readers.batch import Batch
from prunekd.input.readers.faults import Faults


class Reader(Protocol):
    """Turns plans into batches, for as many epochs as wanted; the samples may change from plan to plan.

    bytes_read counts bytes asked of the storage, payload_bytes those of the samples planned; `faults` keeps account of
    corrupt samples.
    """

    name: str
    faults: Faults
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
