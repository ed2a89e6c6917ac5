"""Read a run's folder, finished or not: run.json, metrics.jsonl, result.json and the checkpoints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from prunekd.common.files import read_json, read_records
from prunekd.training.metrics import METRICS_FILE, RECORD
from prunekd.training.outcome import RESULT_FILE
from prunekd.training.run import RUN_FILE


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
    result = path / RESULT_FILE
    return RunFacts(
        path=path,
        finished=result.exists(),
        run=read_json(path / RUN_FILE, {"recipe": dict}),
        result=read_json(result, {"ledger": dict}) if result.exists() else None,
        epochs=[record for _, record in read_records(path / METRICS_FILE, RECORD) if record["kind"] == "epoch"],
        checkpoints=sorted((p.name for p in path.glob("checkpoints/step-*")), key=lambda name: (len(name), name)),
    )
