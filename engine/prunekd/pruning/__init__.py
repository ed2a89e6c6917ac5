"""Which samples to keep: scores, policies, subsets."""
