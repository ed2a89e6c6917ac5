"""Sweeps: a grid of runs over keep ratios, arms, policies and seeds, trained or timed."""
