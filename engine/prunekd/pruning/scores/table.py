"""The scores file: one row per sample, one column per score, provenance in the schema's metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from prunekd.common.registry import unknown
from prunekd.pruning.parquet import check_store, read_table, some, write_table
from prunekd.store import Store

FORMAT = "prunekd-scores"
VERSION = 1

# Columns that are statistics of the teacher's outputs and rank nothing.
STATISTICS = {"teacher_std": "teacher_std@1"}
KEYS = ("id", "label")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of a store's samples.

    Attributes:
        ids: int64 (n,), ascending.
        labels: int64 (n,).
        columns: name -> float32 or float64 (n,).
        definitions: name -> versioned definition, as in `el2n@1`.
        hard_ends: name -> "high" or "low", the end of the scale where the hard samples are; a column without an
            entry is a statistic (`teacher_std`: unbiased standard deviation of the sample's logits over classes).
        class_std: float64 (C,), mean of `teacher_std` over all samples of the class; NaN for a class without samples.
        provenance: what the maker of the scores adds: `made_for(store, split)`, teacher, view, seed.
    """

    ids: np.ndarray
    labels: np.ndarray
    columns: Mapping[str, np.ndarray]
    definitions: Mapping[str, str]
    hard_ends: Mapping[str, str]
    class_std: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Scores({len(self.ids):,} samples, {len(self.class_std)} classes: {', '.join(self.definitions.values())})"
        )

    def __post_init__(self) -> None:
        assert self.ids.shape == self.labels.shape
        assert all(values.shape == self.ids.shape for values in self.columns.values())
        assert set(self.hard_ends) <= set(self.columns)

    def __getitem__(self, name: str) -> np.ndarray:
        """The column `name`, float32 or float64 (n,), in the order of `ids`; ValueError with the nearest name."""
        return self.values(name, self.ids)

    def save(self, path: str | Path) -> None:
        """Write these scores as Parquet: `id`, `label`, a column per score; the rest as JSON in the schema."""
        write_scores(Path(path), self)

    def to_table(self) -> pa.Table:
        """A pyarrow Table with the columns id, label and one per score; `.to_pandas()` makes a data frame of it."""
        return pa.table({"id": self.ids, "label": self.labels, **self.columns})

    def values(self, name: str, ids: np.ndarray) -> np.ndarray:
        """The column `name` of the samples `ids`: (len(ids),), dtype as stored.

        Raises:
            ValueError: no such column (with the nearest name), or a sample without a score.
        """
        if name not in self.columns:
            raise unknown("score", name, self.hard_ends)
        return self.columns[name][self._rows(ids)]

    def difficulty(self, name: str, ids: np.ndarray) -> np.ndarray:
        """The score `name` of the samples `ids`, turned so that larger means harder: (len(ids),), dtype as stored.

        Raises:
            ValueError: as `values`, or the column is a statistic.
        """
        values = self.values(name, ids)
        if name not in self.hard_ends:
            raise ValueError(
                f"{name} is a statistic, not a difficulty; choose from: {', '.join(sorted(self.hard_ends))}"
            )
        return values if self.hard_ends[name] == "high" else -values

    def check(self, store: Store) -> None:
        """Raise ValueError if these scores were made for another store than `store`."""
        remedy = f"score this one: prunekd score {store.path} --teacher TEACHER --out scores.parquet"
        check_store("this scores file", self.provenance, store, remedy)

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        rows = np.searchsorted(self.ids, ids)
        rows[rows == len(self.ids)] = 0
        missing = ids[self.ids[rows] != ids] if len(self.ids) else ids
        if len(missing):
            raise ValueError(f"no score for {len(missing)} samples, ids {some(missing)}; score the whole split")
        return rows


def as_scores(value: Scores | str | Path) -> Scores:
    """Scores from what people hold: Scores, or the path of their file."""
    return value if isinstance(value, Scores) else read_scores(Path(value))


def write_scores(path: Path, scores: Scores) -> None:
    """Write `scores` as Parquet: `id`, `label`, one column per score; all else as JSON under the schema's `prunekd`."""
    description = {
        "format": FORMAT,
        "version": VERSION,
        "definitions": dict(scores.definitions),
        "hard_ends": dict(scores.hard_ends),
        "class_std": [None if np.isnan(value) else float(value) for value in scores.class_std],
        **scores.provenance,
    }
    write_table(path, {"id": scores.ids, "label": scores.labels, **scores.columns}, description)


def read_scores(path: Path) -> Scores:
    """Read what `write_scores` wrote.

    Raises:
        ValueError: the file is missing, not a scores file, or lacks a column that its description names.
    """
    remedy = "make one with: prunekd score STORE --teacher TEACHER --out FILE"
    table, description = read_table(path, FORMAT, VERSION, remedy)
    definitions = description["definitions"]
    lacking = [name for name in (*KEYS, *definitions) if name not in table]
    if lacking:
        raise ValueError(f"{path} lacks the columns {', '.join(lacking)}; {remedy}")
    own = {"format", "version", "definitions", "hard_ends", "class_std"}
    order = np.argsort(table["id"], kind="stable")
    return Scores(
        ids=table["id"][order],
        labels=table["label"][order],
        columns={name: table[name][order] for name in definitions},
        definitions=definitions,
        hard_ends=description["hard_ends"],
        class_std=np.array(
            [np.nan if value is None else value for value in description["class_std"]], dtype=np.float64
        ),
        provenance={name: value for name, value in description.items() if name not in own},
    )
