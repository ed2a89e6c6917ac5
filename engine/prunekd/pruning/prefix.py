"""A smaller subset of the same ranking, without ranking again."""

import json
from dataclasses import replace

import numpy as np

from prunekd.pruning.policies import POLICIES
from prunekd.pruning.subset import Subset
from prunekd.store import Store


def prefix(store: Store, subset: Subset, keep: float | None) -> Subset:
    """The subset that the same selection with a smaller fraction gives; `subset` itself for None or its own fraction.

    Args:
        store: the one the subset was made for.
        keep: a fraction of the whole split, above 0 and below the subset's.

    Raises:
        ValueError: the subset is smaller, its ranking depends on the fraction, or it comes from no ranking.
    """
    info = subset.info
    if keep is None or keep == info["keep"]:
        return subset
    if not 0 < keep < info["keep"]:
        raise ValueError(
            f"--keep is {keep:g}, but the subset has the fraction {info['keep']:g} of the ranking; give a smaller "
            "fraction above 0, or select a larger subset"
        )
    policy = POLICIES.get(info["policy"])
    if policy is None:
        raise ValueError(
            f"the subset is no ranking of a policy ({info['policy']}), so no part of it has the fraction {keep:g}; "
            "give the ids to keep"
        )
    if "keep" in policy.needs:
        raise ValueError(f"the ranking of policy {policy.name} depends on the fraction: select {keep:g} first")
    totals = np.array(info["class_totals"])
    count = policy.count(keep, totals, info["balance"])
    part = store.split(info["split"])
    ids = subset.ids[:count]
    counts = np.bincount(part.labels[part.rows(ids)], minlength=len(totals)).tolist()
    # Through JSON and back, as a subset is that was read from its file.
    own = json.loads(json.dumps({**info, "keep": keep, "kept": count, "class_counts": counts}))
    return replace(subset, ids=ids, weights=None if subset.weights is None else subset.weights[:count], info=own)
