"""From a store to batches: plan, views, readers."""

from collections.abc import Callable

from prunekd.common.registry import unknown
from prunekd.input.batch import Batch, Reader
from prunekd.input.native_reader import NativeReader
from prunekd.input.plan import EpochPlan, eval_plan, order, train_plan
from prunekd.input.torch_reader import TorchReader
from prunekd.input.views import ViewSettings, views
from prunekd.store.index import Store

__all__ = [
    "READERS",
    "Batch",
    "EpochPlan",
    "Reader",
    "ViewSettings",
    "eval_plan",
    "open_reader",
    "order",
    "train_plan",
    "views",
]

READERS: dict[str, Callable[..., Reader]] = {"native": NativeReader, "torch": TorchReader}


def open_reader(name: str, store: Store, split: str = "train", workers: int | None = None, pin: bool = False) -> Reader:
    """Open the reader registered under `name` on a split of a store; ValueError with the nearest name if none is.

    Args:
        workers: decoding threads or processes; None for one per core.
        pin: deliver images in pinned memory, for copies to a GPU that overlap with work.
    """
    if name not in READERS:
        raise unknown("reader", name, READERS)
    return READERS[name](store, split, workers=workers, pin=pin)
