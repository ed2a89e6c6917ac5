"""Policies: pure functions from scores to a ranking of ids. A new policy is one file here and one line in POLICIES."""

from prunekd.pruning.policies import ccs, extremes, medium, random, window
from prunekd.pruning.policies.ordering import BALANCES
from prunekd.pruning.policies.policy import Policy, count_kept

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        random.POLICY,
        extremes.HARDEST,
        extremes.EASIEST,
        medium.POLICY,
        window.POLICY,
        ccs.POLICY,
    )
}

__all__ = ["BALANCES", "POLICIES", "Policy", "count_kept"]
