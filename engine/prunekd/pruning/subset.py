"""Subsets: the kept samples of a store, with where they came from."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunekd.common.registry import unknown
from prunekd.pruning.parquet import check_store, made_for, read_table, some, write_table
from prunekd.pruning.policies import BALANCES, POLICIES, Policy
from prunekd.pruning.scores.features import read_features
from prunekd.pruning.scores.table import Scores
from prunekd.store import Split, Store

FORMAT = "prunekd-subset"
VERSION = 1
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
        return _prefix(
            part, ids, len(ids), len(ids) / len(part.ids), sizes, {**common, **made_for(store, split), **UNSCORED}
        )

    def rows(self, store: Store) -> np.ndarray:
        """Rows of the store's `.beton` file, int64 (k,), in rank order: what `ffcv.Loader(indices=...)` takes."""
        return store.split(self.info["split"]).rows(self.ids)

    def save(self, path: str | Path) -> None:
        """Write this subset as Parquet: `id` in rank order, `weight` where it has one; info under the key `prunekd`."""
        write_subset(Path(path), self)

    def check(self, store: Store) -> None:
        """Raise ValueError if this subset was made for another store than `store`; the message names both."""
        remedy = (
            f"make one for it: prunekd select {store.path} --policy {self.info['policy']} --keep {self.info['keep']:g}"
        )
        check_store("this subset", self.info, store, remedy)


def as_subset(store: Store, value: "Subset | str | Path | np.ndarray", split: str = "train") -> Subset:
    """A subset from what people hold: a Subset, the path of its file, or sample ids, int64 (k,)."""
    if isinstance(value, Subset):
        subset = value
    elif isinstance(value, (str, Path)):
        subset = read_subset(Path(value))
    else:
        return Subset.of_ids(store, np.asarray(value), split)
    subset.check(store)
    return subset


def select(store: Store, policy: str, keep: float, seed: int = 0, **options: Any) -> Subset:
    """Keep the fraction `keep` of a split: `select_ratios` for one ratio."""
    return select_ratios(store, policy, [keep], seed, **options)[0]


def select_ratios(
    store: Store,
    policy: str,
    keeps: Sequence[float],
    seed: int = 0,
    *,
    scores: Scores | None = None,
    score: str | None = None,
    balance: str | None = None,
    parameters: Mapping[str, float] | None = None,
    split: str = "train",
    features: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Subset]:
    """Keep each of several fractions of a split: prefixes of one ranking, unless the policy's depends on the ratio.

    Args:
        store: an open store.
        policy: a key of POLICIES.
        keeps: each in (0, 1]; see `Policy.count` for how many samples one means.
        seed: of the policies that draw.
        scores: of this store; read only by policies that need one.
        score: the column to rank by; None for the policy's own choice.
        balance: a key of BALANCES; None for the policy's own choice.
        parameters: overrides of the policy's parameters.
        split: the name of a split of the store.
        features: of policies that need them, a file that `prunekd score --features` wrote for this split.
        progress: called by slow policies with classes done and in all.

    Raises:
        ValueError: a value out of range, an unknown name, scores missing or made for another store, or NaN scores.
    """
    for keep in keeps:
        if not 0 < keep <= 1:
            raise ValueError(f"keep must be a fraction in (0, 1], not {keep}")
    plan = _policy(policy)
    balance = balance or plan.default_balance
    part = store.split(split)
    _check(plan, balance, seed, score, parameters or {})
    order = np.argsort(part.ids, kind="stable")
    ids, labels = part.ids[order], part.labels[order]
    difficulty = _difficulty(store, plan, scores, score, ids, split) if plan.needs_score else None
    numbers = {**plan.parameters, **(parameters or {})}
    needed: dict[str, object] = {}
    if "progress" in plan.needs:
        needed["progress"] = progress
    if "features" in plan.needs:
        needed["features"] = _features(plan, features, len(ids))
    if "p_mean" in plan.needs:
        needed["p_mean"] = _p_mean(plan, scores, ids)

    def ranking(**more: float) -> np.ndarray:
        return plan.rank(difficulty, labels, ids, seed, balance=balance, **numbers, **needed, **more)

    rankings = [ranking(keep=keep) for keep in keeps] if "keep" in plan.needs else [ranking()] * len(keeps)
    sizes = np.bincount(part.labels, minlength=len(store.classes))
    common = {
        "policy": policy,
        "parameters": numbers,
        "balance": balance,
        "seed": seed,
        **made_for(store, split),
        **_scored_by(plan, scores, score),
    }
    return [
        _prefix(part, ranked, plan.count(keep, sizes, balance), keep, sizes, common)
        for keep, ranked in zip(keeps, rankings, strict=True)
    ]


def _prefix(
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


def _check(plan: Policy, balance: str, seed: int, score: str | None, parameters: Mapping[str, float]) -> None:
    """Raise ValueError for a balance, seed, score or parameter that does not exist or does not go with the policy."""
    if balance not in BALANCES:
        raise unknown("balance", balance, BALANCES)
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in [0, 2^64), not {seed}")
    if score and not plan.needs_score:
        raise ValueError(f"policy {plan.name} ranks by no score, so {score!r} cannot be used")
    for name in parameters:
        if not plan.parameters:
            raise ValueError(f"policy {plan.name} has no parameters, so {name!r} cannot be set")
        if name not in plan.parameters:
            raise unknown(f"parameter of policy {plan.name}", name, plan.parameters)


def _features(plan: Policy, path: Path | None, count: int) -> np.ndarray:
    if path is None:
        raise ValueError(
            f"policy {plan.name} looks at features; write them with `prunekd score STORE --teacher T --features F.npy "
            "--out SCORES` and give --features F.npy"
        )
    return read_features(path, count)


def _p_mean(plan: Policy, scores: Scores | None, ids: np.ndarray) -> np.ndarray:
    if scores is None or "p_mean" not in scores.columns:
        raise ValueError(
            f"policy {plan.name} also needs the column p_mean; train with --track dual,p_mean and give the run's "
            "scores.parquet"
        )
    return scores.values("p_mean", ids)


def write_subset(path: Path, subset: Subset) -> None:
    """Write `subset` as Parquet: `id` in rank order, `weight` where it has one; info under the schema's `prunekd`."""
    columns = {"id": subset.ids}
    if subset.weights is not None:
        columns["weight"] = subset.weights
    write_table(path, columns, {"format": FORMAT, "version": VERSION, **subset.info})


def read_subset(path: Path) -> Subset:
    """Read what `write_subset` wrote.

    Raises:
        ValueError: the file is missing, not a subset, or has lost its `id` column.
    """
    remedy = "make one with: prunekd select STORE --policy POLICY --keep RATIO --out FILE"
    table, description = read_table(path, FORMAT, VERSION, remedy)
    if "id" not in table:
        raise ValueError(f"{path} lacks the column id; {remedy}")
    info = {name: value for name, value in description.items() if name not in ("format", "version")}
    return Subset(ids=table["id"], weights=table.get("weight"), info=info)


def _policy(name: str) -> Policy:
    if name not in POLICIES:
        raise unknown("policy", name, POLICIES)
    return POLICIES[name]


def _scored_by(plan: Policy, scores: Scores | None, score: str | None) -> Mapping[str, object]:
    name = score or plan.default_score
    if scores is None or name is None:
        return UNSCORED
    makers = {key: scores.provenance.get(key) for key in ("teacher", "view", "seed")}
    return {"score": name, "score_definition": scores.definitions[name], "scored_by": makers}


def _difficulty(
    store: Store, plan: Policy, scores: Scores | None, score: str | None, ids: np.ndarray, split: str
) -> np.ndarray:
    name = score or plan.default_score
    assert name is not None
    if scores is None:
        raise ValueError(
            f"policy {plan.name} ranks by a score ({name}) and no scores were given; make them with: "
            f"prunekd score {store.path} --teacher TEACHER --out scores.parquet"
        )
    scores.check(store)
    scored_split = scores.provenance.get("split", split)
    if scored_split != split:
        raise ValueError(f"the scores are of the split {scored_split!r}, not {split!r}; score that split")
    return scores.difficulty(name, ids)
