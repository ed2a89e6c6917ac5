"""What a finished run leaves: its student, the scores it gathered, its figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunekd.common.distributed import World
from prunekd.common.files import Kind, read_json
from prunekd.common.ledger import PHASES, Ledger, critical_path
from prunekd.distill.teacher_files import MODEL_FILE
from prunekd.models import ModelCard, load_trained, save_trained
from prunekd.models.trained import load_weights, read_card
from prunekd.pruning.parquet import made_for
from prunekd.pruning.scores import Scores, read_scores, write_scores
from prunekd.pruning.training_dynamics import Tracker, tracked_scores
from prunekd.training.run import RunSpec

RESULT_FILE = "result.json"
# what callers rely on; a report needs more of the runs of a sweep
RESULT: dict[str, Kind] = {
    "model": str, "top1": (float, type(None)), "best_top1": (float, type(None)), "train_seconds": float,
    "samples_kept": int, "epochs": int, "ledger": dict,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run on disk.

    Attributes:
        path: its folder, which is also a teacher: `prunekd.open_teacher(run.path, store)`.
        result: contents of result.json: accuracies in [0, 1], times in seconds, counts.
    """

    path: Path
    result: Mapping[str, Any]

    def __repr__(self) -> str:
        top1 = "top-1 not measured" if self.top1 is None else f"top-1 {self.top1:.2%}"
        return f"Run({str(self.path)!r}, {self.result['model']}, {top1}, {self.train_seconds:.1f} s)"

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open the folder of a finished run.

        Raises:
            ValueError: the folder holds no run, or one that is not finished.
        """
        path = Path(path)
        if not (path / "run.json").exists():
            raise ValueError(f"{path} holds no run (no run.json); give a folder that `prunekd train --out` made")
        if not (path / RESULT_FILE).exists():
            raise ValueError(f"the run {path} is not finished; finish it with resume='auto' (`--resume auto`)")
        return cls(path=path, result=read_json(path / RESULT_FILE, RESULT))

    @property
    def top1(self) -> float | None:
        """Accuracy of the last evaluation on the validation split, in [0, 1]; None if nothing was evaluated."""
        return self.result["top1"]

    @property
    def best_top1(self) -> float | None:
        """Highest accuracy of any evaluation, in [0, 1]; None if nothing was evaluated."""
        return self.result["best_top1"]

    @property
    def train_seconds(self) -> float:
        """Seconds of waiting for data and of training steps, without evaluation and checkpoints."""
        return self.result["train_seconds"]

    @property
    def card(self) -> ModelCard:
        """The student's architecture, classes, normalization and input size."""
        return read_card(self.path / MODEL_FILE)

    def load_model(self, module: nn.Module | None = None) -> nn.Module:
        """Load the trained student, in float32 on the CPU, in eval mode.

        Args:
            module: takes the weights, and is returned; needed where the run trained a module of the user's own. None
                builds the architecture that the run names.

        Raises:
            ValueError: the weights do not fit the module, or the architecture is not one that prunekd can build.
        """
        if module is None:
            return load_trained(self.path / MODEL_FILE)[0]
        load_weights(module, self.path / MODEL_FILE)
        return module.eval()

    def load_scores(self) -> Scores:
        """Load the training-dynamics scores that the run gathered (setting `track`).

        Raises:
            ValueError: the run gathered none.
        """
        return read_scores(self.path / "scores.parquet")


def save_student(spec: RunSpec, model: nn.Module, name: str) -> None:
    """Write the weights and what is to be known about them to the file `name` in the run's folder."""
    recipe = spec.recipe
    card = ModelCard(
        model=spec.model_name,
        num_classes=len(spec.store.classes),
        mean=recipe.mean,
        std=recipe.std,
        size=recipe.eval_view.size,
        classes=spec.store.classes,
    )
    save_trained(spec.out / name, model, card)


def save_tracked(spec: RunSpec, ids: np.ndarray, tracker: Tracker) -> None:
    """Write what was gathered of the samples `ids` int64 (n,), ascending, to the run's scores.parquet."""
    store, recipe = spec.store, spec.recipe
    split = store.split("train")
    provenance = {
        **made_for(store, "train"),
        "run": str(spec.out.absolute()),
        "student": spec.model_name,
        "view": recipe.train_view.to_dict(),
        "seed": recipe.seed,
    }
    scores = tracked_scores(tracker, ids, split.labels[split.rows(ids)], len(store.classes), provenance)
    write_scores(spec.out / "scores.parquet", scores)


def summarize(spec: RunSpec, epochs: list[dict[str, Any]], ledger: Ledger, world: World) -> dict[str, Any]:
    """Contents of result.json from a finished run's epoch records and ledger; a collective call.

    Accuracies are in [0, 1]. The ledger is the main process's; with several processes it also has the seconds of
    each (`ranks`; before a resumption the main one's) and their `critical_path`.
    """
    settings, _ = spec.objective_settings()
    evaluated = [record["val_top1"] for record in epochs if "val_top1" in record]
    wait, train = ledger.get("data_wait"), ledger.get("data_wait", "step")
    seen = sum(int(record["samples"]) for record in epochs)
    return {
        "name": spec.out.name,
        "policy": spec.subset.info["policy"] if spec.subset else "all",
        "keep": spec.keep,
        "seed": spec.recipe.seed,
        **spec.tags,
        "model": spec.model_name,
        "epochs": spec.recipe.epochs,
        "samples_kept": spec.kept,
        "samples_total": spec.total,
        "samples_seen": seen,
        "top1": evaluated[-1] if evaluated else None,
        "best_top1": max(evaluated) if evaluated else None,
        "val_samples": len(spec.store.splits["val"]) if "val" in spec.store.splits else 0,
        "train_seconds": train,
        "epoch_seconds": [record["seconds"] for record in epochs],
        "eval_seconds": ledger.get("eval"),
        "images_per_second": seen / train,
        "data_wait_share": wait / train,
        "bytes_read": ledger.counters.get("bytes_read", 0),
        "payload_bytes": ledger.counters.get("payload_bytes", 0),
        "replaced": ledger.counters.get("replaced", 0),
        "skipped": ledger.counters.get("skipped", 0),
        "alpha": settings.alpha if spec.distils else None,
        "temperature": settings.temperature if spec.distils else None,
        "ledger": {**ledger.to_dict(), **_ledger_of_all(ledger, world)},
    }


def _ledger_of_all(ledger: Ledger, world: World) -> dict[str, Any]:
    if world.size == 1:
        return {}
    mine = torch.tensor([ledger.get(name) for name in PHASES], dtype=torch.float64)
    ranks = [dict(zip(PHASES, seconds.tolist(), strict=True)) for seconds in world.gather(mine)]
    ranks = [{name: value for name, value in seconds.items() if value} for seconds in ranks]
    return {"ranks": ranks, "critical_path": critical_path(ranks)}
