"""Every number of a sweep, for other programs: a CSV with one row per run, a JSON with the aggregates."""

import csv
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from prunekd.common.files import replacing, write_json
from prunekd.report.aggregate import Group, Summary
from prunekd.report.headline import headline
from prunekd.report.results import Run


def run_row(run: Run) -> dict[str, Any]:
    """One run as flat values: its fields, its median epoch and the ledger's seconds and counters."""
    values = asdict(run)
    phases, counters, epochs = values.pop("phases"), values.pop("counters"), values.pop("epoch_seconds")
    values["extrapolated"] = bool(values["extrapolated"])
    return {
        **values,
        "kept_share": run.kept_share,
        "read_amplification": run.read_amplification,
        "epoch_seconds_median": median(epochs) if epochs else None,
        "wall_seconds": run.wall_seconds,
        **{f"ledger_{name}": seconds for name, seconds in phases.items()},
        **{f"counter_{name}": amount for name, amount in counters.items()},
    }


def write_csv(summary: Summary, path: Path) -> None:
    """Write one row per finished run; runs that are missing have their name alone."""
    rows = [run_row(run) for run in summary.sweep.runs]
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["name"]
    rows += [{"name": name} for name in summary.sweep.missing]
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def summary_dict(summary: Summary) -> dict[str, Any]:
    """Headline, groups, fits, controls, runs and sweep.json as plain values; `never` stands for infinity."""
    found = plain_values(
        {
            "headline": headline(summary),
            "groups": [group_dict(group) for group in summary.groups],
            "fits": [_plain(asdict(fit)) for fit in summary.fits],
            "equal_time": [asdict(item) for item in summary.equal_time],
            "missing": summary.sweep.missing,
            "unlisted": summary.sweep.unlisted,
            "costs": summary.sweep.costs,
            "runs": [{**run_row(run), "epoch_seconds": run.epoch_seconds} for run in summary.sweep.runs],
            "sweep": summary.sweep.facts,
        }
    )
    assert isinstance(found, dict)
    return found


def group_dict(group: Group) -> dict[str, Any]:
    """A group without its runs, and with the seeds and total seconds."""
    values = {name: getattr(group, name) for name in group.__dataclass_fields__ if name != "runs"}
    plain = {name: asdict(value) if hasattr(value, "__dataclass_fields__") else value for name, value in values.items()}
    return {**plain, "seeds": group.seeds, "total_seconds": group.total_seconds}


def write_summary(summary: Summary, path: Path) -> None:
    """Write `summary_dict` as JSON."""
    write_json(path, summary_dict(summary))


def plain_values(value: Any) -> Any:
    """Turn infinities into the word "never" for JSON, in a tree of dictionaries and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    return "never" if value == math.inf else value


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: {str(a): b for a, b in v.items()} if isinstance(v, Mapping) else v for k, v in values.items()}
