"""What a reader read, and what it could not read, booked in a run's ledger."""

import torch

from prunekd.common.distributed import World
from prunekd.common.ledger import Ledger
from prunekd.input import Reader


class ReaderAccount:
    """A run's share of what a reader counts, which may serve several runs in turn.

    Bytes are booked under `bytes_read` and `payload_bytes` as the run goes, samples that could not be decoded under
    `replaced` and `skipped` at the end of each epoch.
    """

    def __init__(self, reader: Reader, ledger: Ledger, world: World) -> None:
        self._reader, self._ledger, self._world = reader, ledger, world
        self.begin()

    def begin(self) -> None:
        """What was counted up to now belongs to others."""
        self._bytes, self._faults = self._bytes_now(), dict(self._reader.faults.counts)

    def book_bytes(self) -> None:
        """Book what was read since the last call."""
        now = self._bytes_now()
        for name, after in now.items():
            self._ledger.count(name, after - self._bytes[name])
        self._bytes = now

    def book_faults(self) -> dict[str, int]:
        """Book and return samples replaced and skipped since the last call, over all processes (a collective call).

        Empty where the reader raises instead.
        """
        faults = self._reader.faults
        if faults.on_error == "raise":
            return {}
        now = dict(faults.counts)
        mine = torch.tensor([now[name] - self._faults[name] for name in now], device=self._world.device)
        self._faults = now
        found = dict(zip(now, self._world.sum(mine).tolist(), strict=True))
        for name, number in found.items():
            self._ledger.count(name, number)
        return found

    def _bytes_now(self) -> dict[str, int]:
        return {"bytes_read": self._reader.bytes_read, "payload_bytes": self._reader.payload_bytes}
