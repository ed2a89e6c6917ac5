"""What every benchmark writes down beside its figures, and how: hardware, versions, date, command, spread."""

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunekd.common.machine import describe_machine

RESULTS = Path(__file__).parent / "results"


def circumstances() -> dict[str, Any]:
    """Columns that say where a row comes from."""
    machine = describe_machine()
    return {
        "date": machine["started"],
        "hardware": f"{machine['processor']}, {machine['cores']} cores{', ' * bool(machine['gpus'])}"
        + ", ".join(machine["gpus"]),
        "versions": f"python={machine['python']};" + ";".join(f"{k}={v}" for k, v in machine["versions"].items()),
        "command": f"python benchmarks/{machine['command']}",
    }


def spread(name: str, values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Columns NAME_median, NAME_p20, NAME_p80 of repeated measurements."""
    ordered = sorted(values)
    return {
        f"{name}_median": round(statistics.median(ordered), digits),
        f"{name}_p20": round(ordered[len(ordered) // 5], digits),
        f"{name}_p80": round(ordered[len(ordered) * 4 // 5], digits),
    }


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a CSV, with a header if it is new.

    Raises:
        ValueError: the file has other columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(rows[0])
    if path.exists():
        with path.open(newline="") as file:
            header = next(csv.reader(file))
        if header != columns:
            raise ValueError(f"{path} has the columns {header}, the new rows {columns}; move it away first")
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if fresh:
            writer.writeheader()
        writer.writerows(rows)
