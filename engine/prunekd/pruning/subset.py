"""Subsets: the kept samples of a store, with where they came from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from prunekd.pruning.parquet import (
    check_column,
    check_ids,
    check_split,
    check_store,
    columns_digest,
    made_for,
    read_table,
    some,
    write_table,
)
from prunekd.store import Split, Store

FORMAT = "prunekd-subset"
VERSION = 1
NEEDED: dict[str, type | tuple[type, ...]] = {  # what every subset says of itself, with its type
    "policy": str,
    "keep": (int, float),
    "kept": int,
    "total": int,
    "class_counts": list,
    "class_totals": list,
    "split": str,
    "fingerprint": str,
    "store": dict,
}
UNSCORED = {"score": None, "score_definition": None, "scored_by": None}


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The samples kept.

    Attributes:
        ids: int64 (k,), the most valuable first.
        weights: float32 (k,), or None where all weigh the same.
        info: provenance, as JSON gives it back: policy, parameters, balance, score, score_definition,
            scored_by (teacher, view and seed of the scores), seed, keep (the ratio asked for), kept, total,
            class_counts and class_totals (C,), split, fingerprint and store {path, classes}.
    """

    ids: np.ndarray
    info: Mapping[str, Any]
    weights: np.ndarray | None = None

    def __repr__(self) -> str:
        info = self.info
        return f"Subset({info['policy']}: {info['kept']:,} of {info['total']:,} samples, keep {info['keep']:g})"

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of_ids(cls, store: Store, ids: np.ndarray, split: str = "train") -> "Subset":
        """The samples `ids`, int64 (k,) of any order, of a split: a subset of one's own choosing.

        Raises:
            ValueError: not one id, an id named twice, or one that the split lacks.
        """
        ids = np.asarray(ids)
        if ids.ndim != 1 or not len(ids) or ids.dtype.kind not in "iu":
            raise ValueError(f"ids are {ids.dtype} of shape {ids.shape}; give int64 sample ids as (k,), at least one")
        part = store.split(split)
        ids = ids.astype(np.int64)
        values, counts = np.unique(ids, return_counts=True)
        if len(values) < len(ids):
            raise ValueError(f"ids {some(values[counts > 1])} are named more than once; name each sample once")
        sizes = np.bincount(part.labels, minlength=len(store.classes))
        common = {"policy": "given", "parameters": {}, "balance": "none", "seed": 0}
        return first_of(
            part, ids, len(ids), len(ids) / len(part.ids), sizes, {**common, **made_for(store, split), **UNSCORED}
        )

    def rows(self, store: Store) -> np.ndarray:
        """Rows of the store's `.beton` file, int64 (k,), in rank order: what `ffcv.Loader(indices=...)` takes."""
        return store.split(self.info["split"]).rows(self.ids)

    def save(self, path: str | Path) -> None:
        """Write this subset as Parquet: `id` in rank order, `weight` where it has one; info under the key `prunekd`."""
        write_subset(Path(path), self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ids, their order and weights, in hexadecimal: what tells two subsets of one description apart."""
        columns = {"id": self.ids.astype(np.int64)}
        if self.weights is not None:
            columns["weight"] = self.weights.astype(np.float32)
        return columns_digest(columns)

    def describe(self) -> dict[str, Any]:
        """`info` with the `digest`: what runs and other files record of a subset."""
        return {**self.info, "digest": self.digest}

    def check(self, store: Store, split: str | None = None) -> None:
        """Check that this subset was made for `store` and, where one is given, for this split of it.

        Raises:
            ValueError: it was made for another store (the message names both) or split, or, with `split`, the store
                lacks some of its samples.
        """
        policy, keep = self.info["policy"], self.info["keep"]
        command = f"prunekd select {store.path} --policy {policy} --keep {keep:g}"
        check_store("this subset", self.info, store, f"make one for it: {command}")
        if split is not None:
            check_split("this subset is one", self.info, split, f"make one of that split: {command} --split {split}")
            store.split(split).rows(self.ids)


def as_subset(
    store: Store, value: "Subset | str | Path | np.ndarray | Sequence[int]", split: str | None = "train"
) -> Subset:
    """A subset of a split from what people hold: a Subset, the path of its file, or sample ids, int64 (k,).

    Args:
        split: what it must be a subset of; None takes a Subset or file of any split, and ids of `train`.

    Raises:
        ValueError: as `Subset.check`, `read_subset` and `Subset.of_ids`.
    """
    if isinstance(value, Subset):
        subset = value
    elif isinstance(value, (str, Path)):
        subset = read_subset(value)
    else:
        return Subset.of_ids(store, np.asarray(value), split or "train")
    subset.check(store, split)
    return subset


def first_of(
    part: Split, ranking: np.ndarray, count: int, keep: float, sizes: np.ndarray, common: Mapping[str, object]
) -> Subset:
    """The first `count` samples of a ranking, with what a subset says of itself; `sizes` are those of the classes."""
    total = len(part.ids)
    if count > len(ranking):
        raise ValueError(
            f"keep {keep} asks for {count} samples, but policy {common['policy']} offers only {len(ranking)} of "
            f"{total}; keep at most {len(ranking) / total:.3g} or change its parameters"
        )
    ids = ranking[:count]
    info = {
        **common,
        "keep": keep,
        "kept": count,
        "total": total,
        "class_counts": np.bincount(part.labels[part.rows(ids)], minlength=len(sizes)).tolist(),
        "class_totals": sizes.tolist(),
    }
    # Through JSON and back, so that a subset compares equal to what is read from its file.
    return Subset(ids=ids, info=json.loads(json.dumps(info)))


def write_subset(path: str | Path, subset: Subset) -> None:
    """Write `subset` as Parquet: `id` in rank order, `weight` where it has one; info under the schema's `prunekd`."""
    columns = {"id": subset.ids}
    if subset.weights is not None:
        columns["weight"] = subset.weights
    write_table(Path(path), columns, {"format": FORMAT, "version": VERSION, **subset.info})


def read_subset(path: str | Path) -> Subset:
    """Read what `write_subset` wrote, and check its contents.

    Raises:
        ValueError: the file is missing, not a subset, damaged, or holds ids or weights that cannot be right.
    """
    path, remedy = Path(path), "make one with: prunekd select STORE --policy POLICY --keep RATIO --out FILE"
    table, description = read_table(path, FORMAT, VERSION, remedy, lambda description: ["id"])
    info = {name: value for name, value in description.items() if name not in ("format", "version")}
    for name, kind in NEEDED.items():
        if not isinstance(info.get(name), kind):
            raise ValueError(f"{path} has a damaged prunekd description: {name} is {info.get(name)!r}; {remedy}")
    ids, weights = table["id"], table.get("weight")
    if len(ids) != info["kept"] or not len(ids):
        raise ValueError(f"{path} holds {len(ids)} ids, and its description says {info['kept']}; {remedy}")
    check_ids(path, ids, remedy)
    if weights is not None:
        check_column(path, "weight", weights, "f", remedy)
        wrong = ~np.isfinite(weights) | (weights < 0)
        if wrong.any():
            raise ValueError(
                f"{path} gives {int(wrong.sum())} samples a weight that is negative or not finite, the first with id "
                f"{ids[wrong][0]}: {weights[wrong][0]}; {remedy}"
            )
    return Subset(ids=ids.astype(np.int64, copy=False), weights=weights, info=info)
