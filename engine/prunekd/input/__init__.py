"""From a store to batches: plan, views, readers."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from prunekd.common.registry import unknown
from prunekd.input.plan import EpochPlan, eval_plan, order, train_plan
from prunekd.input.readers.batch import Batch
from prunekd.input.readers.faults import ON_ERROR, Faults
from prunekd.input.readers.native_reader import NativeReader
from prunekd.input.readers.reader import Reader
from prunekd.input.readers.torch_reader import TorchReader
from prunekd.input.views import ViewSettings, views
from prunekd.store import Store, open_store

__all__ = [
    "ON_ERROR",
    "READERS",
    "Batch",
    "EpochPlan",
    "Faults",
    "Reader",
    "ViewSettings",
    "eval_plan",
    "open_reader",
    "order",
    "train_plan",
    "views",
]


def _on_demand(module: str, reader: str, extra: str) -> Callable[..., Reader]:
    """A reader whose module is imported when it is opened; ValueError names the extra to install where it cannot."""

    def open_it(*args: Any, **settings: Any) -> Reader:
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the reader {extra!r} needs {error.name}, which is not installed: pip install 'prunekd[{extra}]'"
            ) from None
        return getattr(found, reader)(*args, **settings)  # type: ignore[no-any-return]

    return open_it


READERS: dict[str, Callable[..., Reader]] = {
    "native": NativeReader,
    "native-scaled": partial(NativeReader, scaled=True),
    "torch": TorchReader,
    "ffcv": _on_demand("prunekd.input.readers.ffcv_reader", "FfcvReader", "ffcv"),
    "dali": _on_demand("prunekd.input.readers.dali_reader", "DaliReader", "dali"),
}


def open_reader(
    name: str,
    store: Store | str | Path,
    split: str = "train",
    workers: int | None = None,
    pin: bool = False,
    on_error: str = "raise",
) -> Reader:
    """Open the reader registered under `name` on a split of a store.

    Args:
        store: an open store, or its path.
        workers: decoding threads or processes; None for one per core.
        pin: deliver images in pinned memory, for copies to a GPU that overlap with work.
        on_error: what happens with a corrupt sample: `raise`, `replace` it by a kept one of its class, or `skip` it.

    Raises:
        ValueError: no reader of this name (the message has the nearest one), or its package is not installed.
    """
    if name not in READERS:
        raise unknown("reader", name, READERS)
    opened = store if isinstance(store, Store) else open_store(store)
    return READERS[name](opened, split, workers=workers, pin=pin, on_error=on_error)
