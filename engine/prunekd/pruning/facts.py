"""What scores and subsets hold, in figures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from prunekd.common.distribution import Distribution
from prunekd.pruning.scores.table import Scores
from prunekd.pruning.subset import Subset


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """One column of scores: its versioned definition, the end that is hard ("high", "low" or None), its values."""

    definition: str
    hard_end: str | None
    values: Distribution

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {"definition": self.definition, "hard_end": self.hard_end, **asdict(self.values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresFacts:
    """Scores in figures.

    Attributes:
        samples, classes: their numbers.
        provenance: as of Scores.
        columns: by name.
        class_std: over the classes.
    """

    samples: int
    classes: int
    provenance: Mapping[str, object]
    columns: Mapping[str, ColumnFacts]
    class_std: Distribution

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "kind": "scores",
            "samples": self.samples,
            "classes": self.classes,
            **self.provenance,
            "columns": {name: column.to_dict() for name, column in self.columns.items()},
            "class_std": asdict(self.class_std),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanScore:
    """The mean of a score over the samples kept and over those dropped; None where none is finite."""

    kept: float | None
    dropped: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetFacts:
    """A subset in figures.

    Attributes:
        subset: the subset itself.
        class_share: over the classes that have samples, the share kept.
        mean_scores: by score; None if no scores were given.
        class_names: None if its store was not given.
        contact_sheet: the picture drawn of it.
    """

    subset: Subset
    class_share: Distribution
    mean_scores: Mapping[str, MeanScore] | None = None
    class_names: tuple[str, ...] | None = None
    contact_sheet: Path | None = None

    @property
    def share(self) -> float:
        """Samples kept of all, in (0, 1]."""
        return float(self.subset.info["kept"] / self.subset.info["total"])

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        values: dict[str, object] = {
            "kind": "subset",
            **self.subset.info,
            "share": self.share,
            "weighted": self.subset.weights is not None,
            "class_share": asdict(self.class_share),
        }
        if self.mean_scores is not None:
            values["mean_scores"] = {name: asdict(mean) for name, mean in self.mean_scores.items()}
        if self.class_names is not None:
            values["class_names"] = list(self.class_names)
        if self.contact_sheet is not None:
            values["contact_sheet"] = str(self.contact_sheet)
        return values


def scores_facts(scores: Scores) -> ScoresFacts:
    """Provenance, and per column its definition, hard end and distribution."""
    return ScoresFacts(
        samples=len(scores.ids),
        classes=len(scores.class_std),
        provenance=scores.provenance,
        columns={
            name: ColumnFacts(
                definition=definition,
                hard_end=scores.hard_ends.get(name),
                values=Distribution.of(scores.columns[name]),
            )
            for name, definition in scores.definitions.items()
        },
        class_std=Distribution.of(scores.class_std),
    )


def subset_facts(
    subset: Subset,
    scores: Scores | None = None,
    class_names: tuple[str, ...] | None = None,
    contact_sheet: Path | None = None,
) -> SubsetFacts:
    """The range of the classes' kept shares; with `scores`, the means of kept and dropped."""
    counts, totals = np.array(subset.info["class_counts"]), np.array(subset.info["class_totals"])
    present = totals > 0
    return SubsetFacts(
        subset=subset,
        class_share=Distribution.of(counts[present] / totals[present]),
        mean_scores=None if scores is None else _mean_scores(subset, scores),
        class_names=class_names,
        contact_sheet=contact_sheet,
    )


def _mean_scores(subset: Subset, scores: Scores) -> dict[str, MeanScore]:
    kept = np.isin(scores.ids, subset.ids)
    return {
        name: MeanScore(kept=Distribution.of(values[kept]).mean, dropped=Distribution.of(values[~kept]).mean)
        for name, values in scores.columns.items()
    }
