"""What a policy is: a ranking of sample ids, and how many of them a keep ratio means."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

Rank = Callable[..., np.ndarray]
"""A pure function `(scores, labels, ids, seed, *, balance, **parameters) -> ids`, the most valuable first.

Every keep ratio is a prefix of what it returns (unless it needs `keep`), and the order of the input rows changes
nothing.

Args:
    scores: difficulty (n,), larger is harder; None for a policy that needs none.
    labels: int64 (n,), non-negative.
    ids: int64 (n,), unique.
    seed: of whatever the policy draws, 0 or more.
    balance: a key of `ordering.BALANCES`.
    parameters: the policy's own, by name.
    needs: what else it asked for, by name: keep (the ratio), p_mean (n,), features float16 (n, F) with the rows in
        ascending order of id, progress (called with classes done and in all).

Returns:
    int64 ids; fewer than n where the policy gives up some samples for good.
"""


def count_kept(keep: float, class_sizes: np.ndarray, balance: str) -> int:
    """How many samples the ratio `keep` in (0, 1] means for classes of the sizes (C,).

    "quota" is P2's rule, as its authors compute it: q = int(N / C * keep) for every class, a smaller class whole, so
    that with uneven classes fewer than `keep` remain. For all else N * keep, half rounded up, at least 1.

    Raises:
        ValueError: the quota is 0.
    """
    total = int(class_sizes.sum())
    if balance != "quota":
        return max(1, math.floor(total * keep + 0.5))
    quota = int(total / len(class_sizes) * keep)
    if quota == 0:
        raise ValueError(
            f"keep {keep} leaves no sample in a class: {total} samples in {len(class_sizes)} classes; "
            f"keep at least {len(class_sizes) / total:.2g}, or choose another balance than 'quota'"
        )
    return int(np.minimum(class_sizes, quota).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One entry of POLICIES.

    Attributes:
        name: as on the command line.
        summary: one line for help texts.
        rank: the ranking.
        default_score: the score it ranks by unless told otherwise; None for a policy that needs none.
        default_balance: a key of `ordering.BALANCES`.
        parameters: the policy's own numbers with their defaults.
        needs: what else `rank` takes: keep, p_mean, features, progress.
        count: how many ids a keep ratio means.
    """

    name: str
    summary: str
    rank: Rank
    default_score: str | None = None
    default_balance: str = "none"
    parameters: Mapping[str, float] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    count: Callable[[float, np.ndarray, str], int] = count_kept

    @property
    def needs_score(self) -> bool:
        """Whether it ranks by a score."""
        return self.default_score is not None
