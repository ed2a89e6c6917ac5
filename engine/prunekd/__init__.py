"""prunekd: train an image classifier by knowledge distillation on a pruned dataset.

Everything a user needs is a name of this module. A name is imported when it is first used, so that `import prunekd`
itself loads neither PyTorch nor NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from prunekd.common.version import __version__

if TYPE_CHECKING:
    from prunekd.api.labels import make_labels as make_labels
    from prunekd.api.scoring import score as score
    from prunekd.api.selecting import select as select
    from prunekd.api.stores import convert as convert
    from prunekd.api.stores import open_store as open_store
    from prunekd.api.sweeps import report as report
    from prunekd.api.sweeps import run_sweep as run_sweep
    from prunekd.api.teachers import open_teacher as open_teacher
    from prunekd.api.training import train as train
    from prunekd.distill.distillation import Distillation as Distillation
    from prunekd.distill.soft_labels import CachedTeacher as CachedTeacher
    from prunekd.distill.teacher import OnlineTeacher as OnlineTeacher
    from prunekd.input.loader import Loader as Loader
    from prunekd.input.readers.batch import Batch as Batch
    from prunekd.pruning.scores.table import Scores as Scores
    from prunekd.pruning.subset import Subset as Subset
    from prunekd.reporting.results import Sweep as Sweep
    from prunekd.store.format.store import Store as Store
    from prunekd.training.outcome import Run as Run

# name -> the module that defines it
_HOMES = {
    "convert": "prunekd.api.stores",
    "open_store": "prunekd.api.stores",
    "open_teacher": "prunekd.api.teachers",
    "score": "prunekd.api.scoring",
    "select": "prunekd.api.selecting",
    "Loader": "prunekd.input.loader",
    "Distillation": "prunekd.distill.distillation",
    "make_labels": "prunekd.api.labels",
    "train": "prunekd.api.training",
    "run_sweep": "prunekd.api.sweeps",
    "report": "prunekd.api.sweeps",
    "Batch": "prunekd.input.readers.batch",
    "CachedTeacher": "prunekd.distill.soft_labels",
    "OnlineTeacher": "prunekd.distill.teacher",
    "Run": "prunekd.training.outcome",
    "Scores": "prunekd.pruning.scores.table",
    "Store": "prunekd.store.format.store",
    "Subset": "prunekd.pruning.subset",
    "Sweep": "prunekd.reporting.results",
}

__all__ = [
    "Batch",
    "CachedTeacher",
    "Distillation",
    "Loader",
    "OnlineTeacher",
    "Run",
    "Scores",
    "Store",
    "Subset",
    "Sweep",
    "__version__",
    "convert",
    "make_labels",
    "open_store",
    "open_teacher",
    "report",
    "run_sweep",
    "score",
    "select",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'prunekd' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # looked up once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
