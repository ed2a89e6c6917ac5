"""Choose the samples to keep."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prunekd.api.stores import AnyStore, open_store
from prunekd.pruning import selection as pruning
from prunekd.pruning.scores.table import Scores, as_scores
from prunekd.pruning.subset import Subset


def select(
    store: AnyStore,
    policy: str,
    *,
    keep: float,
    scores: Scores | str | Path | None = None,
    score: str | None = None,
    balance: str | None = None,
    seed: int = 0,
    parameters: Mapping[str, float] | None = None,
    features: str | Path | None = None,
    split: str = "train",
    progress: Callable[[int, int], None] | None = None,
) -> Subset:
    """Choose which samples of a split to keep.

    A smaller `keep` with the same settings always keeps a part of what a larger one does (but for the policy beta).

    Args:
        policy: random, hardest, easiest, medium, moderate, window, ccs, beta, herding, k_center or d2.
        keep: the fraction to keep, in (0, 1].
        scores: Scores of the store, or their file, for policies that rank by a score.
        score: the column to rank by; None for the policy's own choice, such as teacher_ce.
        balance: none (one ranking over all), proportional (each class its share), equal (the classes take turns) or
            quota (at most int(N / C * keep) of each class); None for the policy's own choice.
        seed: of what is drawn.
        parameters: of the policy, such as {"low": 0.2} for window.
        features: a file of a teacher's features, float16 (n, F), for herding, k_center and d2.
        split: the split to choose from.
        progress: called by slow policies with (classes done, classes in all).

    Raises:
        ValueError: a value out of range, an unknown name, or scores missing or made for another store.

    Example:
        half = prunekd.select("store", "random", keep=0.5, balance="equal")
        tenth = prunekd.select("store", "medium", keep=0.1, scores="scores.parquet")
        assert set(tenth.ids) <= set(store.split("train").ids)
        half.save("random-half.parquet")
    """
    return select_ratios(
        store,
        policy,
        keeps=[keep],
        scores=scores,
        score=score,
        balance=balance,
        seed=seed,
        parameters=parameters,
        features=features,
        split=split,
        progress=progress,
    )[0]


def select_ratios(
    store: AnyStore,
    policy: str,
    *,
    keeps: Sequence[float],
    scores: Scores | str | Path | None = None,
    score: str | None = None,
    balance: str | None = None,
    seed: int = 0,
    parameters: Mapping[str, float] | None = None,
    features: str | Path | None = None,
    split: str = "train",
    progress: Callable[[int, int], None] | None = None,
) -> list[Subset]:
    """Choose several fractions at once: prefixes of one ranking, unless the policy's depends on the fraction.

    Arguments and errors as for `select`; `keeps` are fractions in (0, 1], and the subsets come in their order.
    """
    return pruning.select_ratios(
        open_store(store),
        policy,
        keeps,
        seed,
        scores=None if scores is None else as_scores(scores),
        score=score,
        balance=balance,
        parameters=parameters,
        split=split,
        features=None if features is None else Path(features),
        progress=progress or (lambda done, total: None),
    )
