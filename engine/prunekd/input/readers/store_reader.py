"""What all readers of a store have in common."""

from prunekd.common.closing import Closing
from prunekd.input.readers.faults import Faults
from prunekd.store import Store


class StoreReader(Closing):
    """A split with its payloads, its faults and the counters of a Reader.

    Args:
        on_error: what happens with a corrupt sample, see Faults.
    """

    def __init__(self, store: Store, split: str, on_error: str) -> None:
        self._split = store.split(split)
        self._payloads = self._split.payloads()
        self.faults = Faults(self._split, self._payloads, on_error)
        self.bytes_read = 0
        self.payload_bytes = 0

    def close(self) -> None:
        """Close the store's file."""
        self._payloads.close()
