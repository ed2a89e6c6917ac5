"""Every number of a sweep, for other programs: a CSV with one row per run, a JSON with the aggregates."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from prunekd.reporting.aggregate import Summary
from prunekd.reporting.claims import check_claims
from prunekd.reporting.group import Group
from prunekd.reporting.headline import headline
from prunekd.reporting.results import Run, overlap_note, timing_note


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


def render_csv(summaries: Sequence[Summary]) -> str:
    """One row per finished run; runs that are missing have their sweep and name alone."""
    rows = [{"sweep": s.sweep.path.name, **run_row(run)} for s in summaries for run in s.sweep.runs]
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["sweep", "name"]
    rows += [{"sweep": s.sweep.path.name, "name": name} for s in summaries for name in s.sweep.missing]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def summary_dict(summary: Summary) -> dict[str, Any]:
    """Headline, groups, fits, controls, runs and sweep.json as plain values; `never` stands for infinity."""
    found = plain_values(
        {
            "headline": headline(summary),
            "extrapolated": timing_note(summary.sweep),
            "claims": [asdict(claim) for claim in check_claims(summary)],
            "groups": [group_dict(group) for group in summary.groups],
            "fits": [_plain(asdict(fit)) for fit in summary.fits],
            "equal_time": [asdict(item) for item in summary.equal_time],
            "missing": summary.sweep.missing,
            "unlisted": summary.sweep.unlisted,
            "costs": summary.sweep.costs,
            "processes": [process.seconds for process in summary.sweep.processes],
            "overlap": overlap_note(summary.sweep),
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


def render_json(summaries: Sequence[Summary]) -> str:
    """`summary_dict` of one sweep, or of several under `sweeps`."""
    found = [summary_dict(summary) for summary in summaries]
    return json.dumps(found[0] if len(found) == 1 else {"sweeps": found}, indent=2, allow_nan=False) + "\n"


def plain_values(value: Any) -> Any:
    """Turn infinities into the word "never" for JSON, in a tree of dictionaries and lists."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    return "never" if value == math.inf else value


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: {str(a): b for a, b in v.items()} if isinstance(v, Mapping) else v for k, v in values.items()}
