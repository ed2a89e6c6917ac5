"""Which samples to keep: scores, policies, subsets.

A pass of the teacher gives scores (`scores.compute_scores`), a policy turns them into a ranking, and a prefix of the
ranking is a subset (`select`).
"""

from prunekd.pruning.selection import select, select_ratios
from prunekd.pruning.subset import Subset, as_subset, read_subset, write_subset

__all__ = ["Subset", "as_subset", "read_subset", "select", "select_ratios", "write_subset"]
