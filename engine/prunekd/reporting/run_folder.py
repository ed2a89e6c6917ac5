"""Read a run's folder, finished or not: run.json, metrics.jsonl, result.json and the checkpoints."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from prunekd.common.files import read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """A run as far as it has come.

    Attributes:
        path: its folder.
        finished: whether it has a result.
        run: contents of run.json, recipe and provenance.
        result: contents of result.json, None where the run is not finished.
        epochs: the log's record of each epoch.
        checkpoints: names of their folders, the oldest first.
    """

    path: Path
    finished: bool
    run: Mapping[str, object]
    result: Mapping[str, object] | None
    epochs: list[Mapping[str, object]]
    checkpoints: list[str]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {"kind": "run", **asdict(self), "path": str(self.path)}


def read_run_folder(path: Path) -> RunFacts:
    """Read the folder of a run.

    Raises:
        ValueError: run.json or result.json is missing or damaged.
    """
    result = path / "result.json"
    return RunFacts(
        path=path,
        finished=result.exists(),
        run=read_json(path / "run.json"),
        result=read_json(result) if result.exists() else None,
        epochs=_epochs(path / "metrics.jsonl"),
        checkpoints=sorted((p.name for p in path.glob("checkpoints/step-*")), key=lambda name: (len(name), name)),
    )


def _epochs(metrics: Path) -> list[Mapping[str, object]]:
    epochs = []
    for line in metrics.read_text().splitlines() if metrics.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break  # the run is being written, or was killed in this line
        if record.get("kind") == "epoch":
            epochs.append(record)
    return epochs
