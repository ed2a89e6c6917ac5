"""Scores that others computed: a CSV, TSV or Parquet file joined to a store by path or id."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from prunekd.pruning.parquet import made_for
from prunekd.pruning.scores.score import HardEnd
from prunekd.pruning.scores.table import KEYS, STATISTICS, Scores
from prunekd.store import Store

PATH_COLUMNS = ("path", "key", "file", "filename", "image", "img", "name")
ID_COLUMNS = ("id", "index", "idx", "sample_id")
EXAMPLES = 3
RESERVED = (*KEYS, *STATISTICS)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinReport:
    """What matched: samples with a score, samples without one and rows without a sample (counts and examples)."""

    rule: str
    matched: int
    unscored: int
    unscored_examples: list[str]
    unused: int
    unused_examples: list[str]

    def __str__(self) -> str:
        lines = [f"{self.matched} samples matched by {self.rule}"]
        for count, what, examples in (
            (self.unscored, "samples of the store have no row in the file", self.unscored_examples),
            (self.unused, "rows of the file belong to no sample of the store", self.unused_examples),
        ):
            if count:
                lines.append(f"{count} {what}: {', '.join(examples)}{', ...' * (count > len(examples))}")
        return "\n".join(lines)


def import_scores(
    store: Store,
    file: Path,
    column: str,
    *,
    key: str,
    key_column: str | None = None,
    hard_end: HardEnd = "high",
    name: str | None = None,
    fill: float | None = None,
) -> tuple[Scores, JoinReport]:
    """Join a column of `file` to the training samples of `store`.

    Paths are compared whole, then by their last two parts (`class/file.jpg`), then by the file's name, whichever is the
    first to match anything; so `train/n01440764/x.JPEG` finds the sample that a store calls `n01440764/x.JPEG`.

    Args:
        column: the score's column; a number counts columns from 0 in a file without a header line.
        key: `path` or `id`.
        key_column: the column of paths or ids, as `column`; None looks for a customary name.
        hard_end: which end of the score is the hard one.
        name: of the column in the result; None for the file's.
        fill: the score of samples that the file lacks; None refuses them.

    Raises:
        ValueError: a reserved name, a file or column that cannot be read, a key that stands twice, nothing that
            matches, or samples without a score.
    """
    name = name or column
    if name in RESERVED:
        raise ValueError(
            f"a score cannot be called {name!r}: scores files have {', '.join(RESERVED)} of their own; choose another "
            "name for it with --as"
        )
    table = _read(file, column, key_column)
    values, keys = _columns(table, file, column, key, key_column)
    split = store.split("train")
    order = np.argsort(split.ids, kind="stable")
    ids = split.ids[order]
    if key == "id":
        wanted: Sequence[str] = [str(i) for i in ids.tolist()]
        rule, rows = "id", _match(wanted, keys, file)
    else:
        names = split.keys()
        wanted = [names[row] for row in order.tolist()]
        rule, rows = _match_paths(wanted, keys, file)
    found = np.array([rows.get(k, -1) for k in range(len(ids))])
    report = _report(rule, wanted, keys, found)
    if not report.matched:
        raise ValueError(f"{file} matches no sample of {store.path} by {key}: it has {keys[:EXAMPLES]}, the store "
                         f"{list(wanted[:EXAMPLES])}")  # fmt: skip
    if report.unscored and fill is None:
        raise ValueError(f"{file} does not score every sample; give them a score with --fill. {report}")
    scores = np.where(found >= 0, values[found], np.nan if fill is None else fill).astype(np.float64)
    return Scores(
        ids=ids,
        labels=split.labels[order],
        columns={name: scores},
        definitions={name: f"{name}@imported"},
        hard_ends={name: hard_end},
        class_std=np.full(len(store.classes), np.nan),
        provenance={**made_for(store, "train"), "imported_from": str(file), "column": column, "joined_by": rule},
    ), report


def _read(file: Path, column: str, key_column: str | None) -> pa.Table:
    if not file.is_file():
        raise ValueError(f"{file} does not exist")
    try:
        if file.suffix == ".parquet":
            return pq.read_table(file)
        numbered = column.isdigit() and (key_column is None or key_column.isdigit())
        return pa.csv.read_csv(
            file,
            read_options=pa.csv.ReadOptions(autogenerate_column_names=numbered),
            parse_options=pa.csv.ParseOptions(delimiter="\t" if file.suffix == ".tsv" else ","),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as {file.suffix.lstrip('.') or 'CSV'}: {error}") from None


def _columns(
    table: pa.Table, file: Path, column: str, key: str, key_column: str | None
) -> tuple[np.ndarray, list[str]]:
    """The score float64 (rows,) and the key as text."""
    if key_column is None:
        usual = PATH_COLUMNS if key == "path" else ID_COLUMNS
        key_column = next((name for name in usual if name in table.column_names), "0" if column.isdigit() else None)
    taken = {}
    for role, name in (("score", column), ("key", key_column)):
        actual = f"f{name}" if name is not None and name.isdigit() and name not in table.column_names else name
        if actual not in table.column_names:
            asked = f"no column {name!r}" if name is not None else f"no column for the {key}"
            raise ValueError(f"{file} has {asked}; its columns are {', '.join(table.column_names)}: "
                             f"name one with --{'column' if role == 'score' else 'key-column'}")  # fmt: skip
        taken[role] = table.column(actual)
    try:
        values = taken["score"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise ValueError(f"column {column} of {file} does not hold numbers: {error}") from None
    return values, [str(value) for value in taken["key"].to_pylist()]


def _match(wanted: Sequence[str], keys: Sequence[str], file: Path) -> dict[int, int]:
    """Position in `wanted` -> row, where they are equal; ValueError for a key that stands twice."""
    rows: dict[str, int] = {}
    for row, key in enumerate(keys):
        if rows.setdefault(key, row) != row:
            raise ValueError(f"{file} scores {key!r} twice, in rows {rows[key]} and {row}")
    return {position: rows[name] for position, name in enumerate(wanted) if name in rows}


def _match_paths(wanted: Sequence[str], keys: Sequence[str], file: Path) -> tuple[str, dict[int, int]]:
    for rule, parts in (("path", 0), ("the last two parts of the path", 2), ("file name", 1)):
        ours, theirs = ([_tail(path, parts) for path in paths] for paths in (wanted, keys))
        if not set(ours) & set(theirs):
            continue
        if len(set(ours)) < len(ours):
            raise ValueError(f"{file} matches the store by {rule} only, which does not tell all samples apart")
        return rule, _match(ours, theirs, file)
    return "path", {}


def _tail(path: str, parts: int) -> str:
    split = PurePosixPath(path.replace("\\", "/")).parts
    return "/".join(split[-parts:] if parts else split)


def _report(rule: str, wanted: Sequence[str], keys: Sequence[str], found: np.ndarray) -> JoinReport:
    unscored = np.flatnonzero(found < 0)
    unused = np.setdiff1d(np.arange(len(keys)), found)
    return JoinReport(
        rule=rule,
        matched=len(found) - len(unscored),
        unscored=len(unscored),
        unscored_examples=[wanted[k] for k in unscored[:EXAMPLES].tolist()],
        unused=len(unused),
        unused_examples=[keys[k] for k in unused[:EXAMPLES].tolist()],
    )
