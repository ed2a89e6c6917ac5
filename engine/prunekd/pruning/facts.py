"""What scores and subsets hold, as plain values for JSON and for tables."""

from typing import Any

import numpy as np

from prunekd.pruning.scores.table import Scores
from prunekd.pruning.subset import Subset


def scores_facts(scores: Scores) -> dict[str, Any]:
    """Provenance, and per column its definition, hard end and distribution."""
    return {
        "kind": "scores",
        "samples": len(scores.ids),
        "classes": len(scores.class_std),
        **scores.provenance,
        "columns": {
            name: {
                "definition": definition,
                "hard_end": scores.hard_ends.get(name),
                **distribution(scores.columns[name]),
            }
            for name, definition in scores.definitions.items()
        },
        "class_std": distribution(scores.class_std),
    }


def subset_facts(subset: Subset, scores: Scores | None = None) -> dict[str, Any]:
    """Provenance, realised ratio, range of the classes' kept shares; with `scores`, kept and dropped in the mean."""
    counts, totals = np.array(subset.info["class_counts"]), np.array(subset.info["class_totals"])
    present = totals > 0
    facts: dict[str, Any] = {
        "kind": "subset",
        **subset.info,
        "share": subset.info["kept"] / subset.info["total"],
        "weighted": subset.weights is not None,
        "class_share": distribution(counts[present] / totals[present]),
    }
    if scores is not None:
        kept = np.isin(scores.ids, subset.ids)
        facts["mean_scores"] = {
            name: {"kept": _mean(values[kept]), "dropped": _mean(values[~kept])}
            for name, values in scores.columns.items()
        }
    return facts


def distribution(values: np.ndarray) -> dict[str, Any]:
    """Minimum, quartiles, maximum and mean of the finite values (null where there are none), and how many are not."""
    finite = values[np.isfinite(values)].astype(np.float64)
    names = ("min", "q25", "median", "q75", "max")
    if not len(finite):
        return {**dict.fromkeys(names), "mean": None, "not_finite": len(values)}
    points = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1])
    facts: dict[str, Any] = dict(zip(names, points.tolist(), strict=True))
    return facts | {"mean": float(finite.mean()), "not_finite": len(values) - len(finite)}


def _mean(values: np.ndarray) -> float | None:
    return distribution(values)["mean"]
