"""Policies: pure functions from scores to a ranking of ids. A new one is an entry of POLICIES."""

from prunekd.pruning.policies import beta, ccs, feature_policies, rank_policies
from prunekd.pruning.policies.ordering import BALANCES
from prunekd.pruning.policies.policy import Policy, count_kept

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        rank_policies.RANDOM,
        rank_policies.HARDEST,
        rank_policies.EASIEST,
        rank_policies.MEDIUM,
        rank_policies.MODERATE,
        rank_policies.WINDOW,
        ccs.CCS,
        beta.BETA,
        feature_policies.HERDING,
        feature_policies.K_CENTER,
        feature_policies.D2,
    )
}

__all__ = ["BALANCES", "POLICIES", "Policy", "count_kept"]
