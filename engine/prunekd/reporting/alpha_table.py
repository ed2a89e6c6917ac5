"""Which weight of the teacher's term is best at which keep ratio: the table that a sweep over alpha answers with.

P1 (Ben-Baruch et al., ICML 2025, section 5) finds that the best alpha rises as fewer samples are kept; `alpha: auto`
(prunekd.distill.alpha) rests on such tables.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunekd.common.files import replacing
from prunekd.reporting.aggregate import val_samples
from prunekd.reporting.results import Sweep
from prunekd.reporting.stats import Stat, difference, stat

FILE = "alpha.csv"  # in the sweep's folder


def alpha_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """A row per (keep, policy, alpha): top-1 in [0, 1], its standard deviation over seeds, and what it says.

    `best` marks the alpha above 0 with the highest mean; `within_spread` one whose mean lies within the standard
    deviation of the difference to the best one, over seeds and for the size of the validation split (None with a
    single seed), so that the sweep does not tell them apart.
    """
    found: dict[tuple[float, str], dict[float, Stat]] = {}
    for keep, policy, alpha in sorted({(run.keep, run.policy, run.alpha or 0.0) for run in sweep.runs}, reverse=True):
        same = [r.top1 for r in sweep.runs if (r.keep, r.policy, r.alpha or 0.0) == (keep, policy, alpha)]
        if top1 := stat(same):
            found.setdefault((keep, policy), {})[alpha] = top1
    images = val_samples(sweep, sweep.runs)
    return [row for (keep, policy), group in found.items() for row in _rows(keep, policy, group, images)]


def write_alpha(sweep: Sweep) -> Path:
    """Write the rows of `alpha_rows` to alpha.csv in the sweep's folder and return the file."""
    rows, file = alpha_rows(sweep), sweep.path / FILE
    with replacing(file) as new, new.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def _rows(keep: float, policy: str, group: dict[float, Stat], images: int | None) -> list[dict[str, Any]]:
    distilled = {alpha: top1 for alpha, top1 in group.items() if alpha > 0} or group
    best = max(distilled, key=lambda alpha: distilled[alpha].mean)
    rows = []
    for alpha, top1 in sorted(group.items()):
        behind = difference(group[best], top1, images)
        close = None if behind.noise is None else behind.points <= behind.noise
        rows.append(
            {
                "keep": keep,
                "policy": policy,
                "alpha": alpha,
                "top1": round(top1.mean, 5),
                "top1_sd": None if top1.sd is None else round(top1.sd, 5),
                "seeds": top1.n,
                "best": alpha == best,
                "within_spread": close,
            }
        )
    return rows


def alpha_text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as lines to read."""
    lines = ["keep   policy     alpha  top-1"]
    for row in rows:
        sd = "" if row["top1_sd"] is None else f" +- {row['top1_sd']:.2%}"
        mark = "  best" if row["best"] else "  not told apart from the best" if row["within_spread"] else ""
        lines.append(f"{row['keep']:<6g} {row['policy']:10} {row['alpha']:<6g} {row['top1']:.2%}{sd}{mark}")
    return "\n".join(lines)
