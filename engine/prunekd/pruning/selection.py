"""Selecting: from a policy, and the scores it ranks by, to subsets."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunekd.common.registry import unknown
from prunekd.pruning.parquet import made_for
from prunekd.pruning.policies import BALANCES, POLICIES, Policy
from prunekd.pruning.scores.features import open_features
from prunekd.pruning.scores.table import Scores
from prunekd.pruning.subset import UNSCORED, Subset, first_of
from prunekd.store import Store

logger = logging.getLogger(__name__)


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
    features: str | Path | None = None,
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
        needed["features"] = _features(plan, features, store, split)
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
        first_of(part, ranked, plan.count(keep, sizes, balance), keep, sizes, common)
        for keep, ranked in zip(keeps, rankings, strict=True)
    ]


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


def _features(plan: Policy, path: str | Path | None, store: Store, split: str) -> np.ndarray:
    if path is None:
        raise ValueError(
            f"policy {plan.name} looks at features; write them with `prunekd score STORE --teacher T --features F.npy "
            "--out SCORES` and give --features F.npy"
        )
    return open_features(Path(path), store, split)


def _p_mean(plan: Policy, scores: Scores | None, ids: np.ndarray) -> np.ndarray:
    if scores is None or "p_mean" not in scores.columns:
        raise ValueError(
            f"policy {plan.name} also needs the column p_mean; train with --track dual,p_mean and give the run's "
            "scores.parquet"
        )
    return scores.values("p_mean", ids)


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
    scores.check(store, split)
    _warn_of_ties(name, scores.values(name, ids))
    return scores.difficulty(name, ids)


def _warn_of_ties(name: str, values: np.ndarray) -> None:
    """Warn of a score that cannot rank all samples: the same for all, or infinite."""
    infinite = int(np.isinf(values).sum())
    if len(values) > 1 and (values == values[0]).all():
        logger.warning(
            f"the score {name} is {values[0]:g} for all {len(values)} samples, so it ranks none of them and the order "
            "of ids decides; check where the scores come from"
        )
    elif infinite:
        logger.warning(
            f"the score {name} is infinite for {infinite} of {len(values)} samples, so among these the order of ids "
            "decides"
        )
