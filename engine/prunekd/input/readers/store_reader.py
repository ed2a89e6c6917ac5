"""What all readers of a store have in common."""

from dataclasses import replace

import numpy as np

from prunekd.common.closing import Closing
from prunekd.input.plan import EpochPlan
from prunekd.input.readers.faults import Faults
from prunekd.store import Split, Store


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

    def _own(self, plan: EpochPlan) -> EpochPlan:
        """The plan, over this reader's own split, whichever opening of the store it was made from.

        Raises:
            ValueError: a plan over other samples.
        """
        if plan.split is self._split:
            return plan
        if not same_samples(plan.split, self._split):
            raise ValueError(
                f"the plan is over {plan.split!r}, this reader reads {self._split!r}; plan over the split that it reads"
            )
        return replace(plan, split=self._split)

    def close(self) -> None:
        """Close the store's file."""
        self._payloads.close()


def same_samples(one: Split, other: Split) -> bool:
    """Whether two splits are openings of one: the same samples with the same bytes in the same rows."""
    return one.name == other.name and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("ids", "labels", "pointers", "sizes", "modes", "widths", "heights", "crc32")
    )
