"""The scores file: one row per sample, one column per score, provenance in the schema's metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import pyarrow as pa

from prunekd.common.registry import unknown
from prunekd.pruning.parquet import check_column, check_ids, check_split, check_store, read_table, some, write_table
from prunekd.store import Store

FORMAT = "prunekd-scores"
VERSION = 1

# Columns that are statistics of the teacher's outputs and rank nothing.
STATISTICS = {"teacher_std": "teacher_std@1"}
KEYS = ("id", "label")
NEEDED = {"definitions": dict, "hard_ends": dict, "class_std": list}  # of a description, with their types


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

    Raises:
        ValueError: a score that is called `id` or `label`, or arrays and names that do not go together.
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
        for name, values in self.columns.items():
            if name in KEYS:
                raise ValueError(
                    f"a score cannot be called {name!r}, the column of a scores file that holds the sample's {name}; "
                    "choose another name (--as)"
                )
            if not self.ids.shape == self.labels.shape == values.shape:
                raise ValueError(
                    f"ids {self.ids.shape}, labels {self.labels.shape} and the score {name} {values.shape} differ in "
                    "shape; give one value per sample"
                )
        if set(self.definitions) != set(self.columns) or not set(self.hard_ends) <= set(self.columns):
            raise ValueError(
                f"the scores {', '.join(self.columns)} are defined as {', '.join(self.definitions)} with hard ends of "
                f"{', '.join(self.hard_ends)}; give each score a definition, and hard ends to no others"
            )

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
        return self.columns[name][self.rows(ids)]

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

    def check(self, store: Store, split: str | None = None) -> None:
        """Raise ValueError if these scores were made for another store than `store`, or another split of it."""
        remedy = f"prunekd score {store.path} --teacher TEACHER --out scores.parquet"
        check_store("this scores file", self.provenance, store, f"score this one: {remedy}")
        if split is not None:
            check_split("these scores are", self.provenance, split, f"score that split (train is scored by {remedy})")

    def class_scale(self, store: Store) -> np.ndarray:
        """The class statistics that logit reshaping takes: float32 (C,), `class_std`, 1 for a class without samples.

        Raises:
            ValueError: these scores were made for another store or split, or lack the statistics of a class that has
                samples, as imported, averaged and tracked scores do.
        """
        self.check(store, "train")
        present = np.bincount(store.split("train").labels, minlength=len(store.classes)) > 0
        known = np.isfinite(self.class_std) & (self.class_std > 0)
        lacking = np.flatnonzero(present & ~known) if len(known) == len(present) else np.arange(len(present))
        if len(lacking):
            raise ValueError(
                f"these scores have no class statistics for {len(lacking)} of {len(present)} classes (the first: "
                f"{store.classes[lacking[0]]}), so they cannot reshape a teacher's logits: imported, averaged and "
                f"tracked scores have none; give those of a teacher: prunekd score {store.path} --teacher TEACHER "
                "--out scores.parquet"
            )
        return np.where(known, self.class_std, 1).astype(np.float32)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Where the samples `ids` stand in the arrays: int64 of the shape of `ids`; ValueError for one without."""
        rows = np.searchsorted(self.ids, ids)
        rows[rows == len(self.ids)] = 0
        missing = ids[self.ids[rows] != ids] if len(self.ids) else ids
        if len(missing):
            raise ValueError(f"no score for {len(missing)} samples, ids {some(missing)}; score the whole split")
        return rows


def as_scores(value: Scores | str | Path) -> Scores:
    """Scores from what people hold: Scores, or the path of their file."""
    return value if isinstance(value, Scores) else read_scores(Path(value))


def write_scores(path: str | Path, scores: Scores) -> None:
    """Write `scores` as Parquet: `id`, `label`, one column per score; all else as JSON under the schema's `prunekd`."""
    description = {
        "format": FORMAT,
        "version": VERSION,
        "definitions": dict(scores.definitions),
        "hard_ends": dict(scores.hard_ends),
        "class_std": [None if np.isnan(value) else float(value) for value in scores.class_std],
        **scores.provenance,
    }
    write_table(Path(path), {"id": scores.ids, "label": scores.labels, **scores.columns}, description)


def read_scores(path: str | Path) -> Scores:
    """Read what `write_scores` wrote, and check its contents.

    Raises:
        ValueError: the file is missing, not a scores file, damaged, lacks a column that its description names, or holds
            ids or labels that cannot be right.
    """
    path, remedy = Path(path), "make one with: prunekd score STORE --teacher TEACHER --out FILE"
    table, description = read_table(path, FORMAT, VERSION, remedy, partial(_needed, path, remedy))
    definitions, class_std = description["definitions"], description["class_std"]
    check_ids(path, table["id"], remedy)
    check_column(path, "label", table["label"], "iu", remedy)
    labels = table["label"]
    stray = labels[(labels < 0) | (labels >= len(class_std))]
    if len(stray):
        raise ValueError(
            f"{path} labels {len(stray)} samples outside its {len(class_std)} classes, the first {stray[0]}; {remedy}"
        )
    for name in definitions:
        check_column(path, name, table[name], "f", remedy)
    own = {"format", "version", *NEEDED}
    order = np.argsort(table["id"], kind="stable")
    return Scores(
        ids=table["id"][order],
        labels=labels[order],
        columns={name: table[name][order] for name in definitions},
        definitions=definitions,
        hard_ends=description["hard_ends"],
        class_std=np.array([np.nan if value is None else value for value in class_std], dtype=np.float64),
        provenance={name: value for name, value in description.items() if name not in own},
    )


def _needed(path: Path, remedy: str, description: Mapping[str, Any]) -> list[str]:
    """The columns of a file with this description; ValueError for a damaged one."""
    for name, kind in NEEDED.items():
        if not isinstance(description.get(name), kind):
            raise ValueError(f"{path} has a damaged prunekd description: {name} is {description.get(name)!r}; {remedy}")
    if not all(isinstance(value, (int, float, NoneType)) for value in description["class_std"]):
        raise ValueError(
            f"{path} has a damaged prunekd description: class_std holds other things than numbers; {remedy}"
        )
    return [*KEYS, *description["definitions"]]
