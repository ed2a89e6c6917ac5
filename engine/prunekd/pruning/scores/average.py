"""The mean of several scores files, as early EL2N is averaged over runs (Paul et al., NeurIPS 2021)."""

from collections.abc import Mapping

import numpy as np

from prunekd.pruning.parquet import check_same_store
from prunekd.pruning.scores.table import STATISTICS, Scores


def average_scores(tables: Mapping[str, Scores]) -> Scores:
    """Mean of each score that all tables have, over the samples that all have.

    Args:
        tables: two or more, by the name messages shall give them (their files).

    Raises:
        ValueError: tables of different stores or samples, or without a common score of one definition.
    """
    if len(tables) < 2:
        raise ValueError("to average scores takes two files or more")
    (first_name, first), *others = tables.items()
    for name, table in others:
        check_same_store(first_name, first.provenance, name, table.provenance)
        if not np.array_equal(table.ids, first.ids):
            raise ValueError(f"{first_name} and {name} score different samples; average scores of the same ones")
    common = [
        column
        for column, definition in first.definitions.items()
        if column not in STATISTICS and all(t.definitions.get(column) == definition for _, t in others)
    ]
    if not common:
        raise ValueError(f"{', '.join(tables)} have no score of one definition in common")
    count = len(tables)
    own = ("split", "fingerprint", "store")
    return Scores(
        ids=first.ids,
        labels=first.labels,
        columns={c: np.stack([t.columns[c] for t in tables.values()]).mean(axis=0, dtype=np.float64) for c in common},
        definitions={column: f"{first.definitions[column]} x{count}" for column in common},
        hard_ends={column: first.hard_ends[column] for column in common},
        class_std=np.full_like(first.class_std, np.nan),
        provenance={key: first.provenance[key] for key in own if key in first.provenance}
        | {"mean_of": [dict(table.provenance) for table in tables.values()]},
    )
