"""Dynamic policies: a new choice of samples for every epoch. A new one is a class and a line in DYNAMIC_POLICIES."""

from collections.abc import Mapping

import numpy as np

from prunekd.common.registry import unknown
from prunekd.pruning.epoch_policies.dynamic_policies import RS2, UCB, InfoBatch
from prunekd.pruning.epoch_policies.policy import DynamicPolicy, Observations, Selection

__all__ = ["DYNAMIC_POLICIES", "DynamicPolicy", "Observations", "Selection", "create_dynamic"]

DYNAMIC_POLICIES: dict[str, type[DynamicPolicy]] = {
    "infobatch": InfoBatch,
    "rs2": RS2,
    "ucb": UCB,
}


def create_dynamic(
    name: str, ids: np.ndarray, *, epochs: int, seed: int, parameters: Mapping[str, float] | None = None
) -> DynamicPolicy:
    """Build the dynamic policy registered under `name`.

    Args:
        ids: int64 (n,), the samples it may choose from (all of a store's, or a static subset), in any order.
        epochs: epochs of the run.
        seed: of whatever it draws, 0 or more.
        parameters: overrides of the policy's own numbers.

    Raises:
        ValueError: no such policy or parameter (with the nearest name), or a number out of range.
    """
    if name not in DYNAMIC_POLICIES:
        raise unknown("dynamic policy", name, DYNAMIC_POLICIES)
    policy = DYNAMIC_POLICIES[name]
    for key in parameters or {}:
        if key not in policy.parameters:
            raise unknown(f"parameter of the dynamic policy {name}", key, policy.parameters)
    return policy(ids, epochs, seed, **{**policy.parameters, **(parameters or {})})
