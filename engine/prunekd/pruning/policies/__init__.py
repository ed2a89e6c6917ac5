"""Policies: pure functions from scores to a ranking of ids. A new policy is one file here and one line in POLICIES."""

from prunekd.pruning.policies import beta, ccs, d2, extremes, herding, k_center, medium, moderate, random, window
from prunekd.pruning.policies.ordering import BALANCES
from prunekd.pruning.policies.policy import Policy, count_kept

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        random.POLICY,
        extremes.HARDEST,
        extremes.EASIEST,
        medium.POLICY,
        moderate.POLICY,
        window.POLICY,
        ccs.POLICY,
        beta.POLICY,
        herding.POLICY,
        k_center.POLICY,
        d2.POLICY,
    )
}

__all__ = ["BALANCES", "POLICIES", "Policy", "count_kept"]
