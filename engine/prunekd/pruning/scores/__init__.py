"""Scores: one float per sample, from one pass of a teacher. A new one is an entry of SCORES or FEATURE_SCORES."""

from prunekd.pruning.scores.compute import compute_scores
from prunekd.pruning.scores.feature_scores import FEATURE_SCORES
from prunekd.pruning.scores.logit_scores import SCORES
from prunekd.pruning.scores.score import FeatureScore, Outputs, Score
from prunekd.pruning.scores.table import Scores, as_scores, read_scores, write_scores

__all__ = [
    "FEATURE_SCORES",
    "SCORES",
    "FeatureScore",
    "Outputs",
    "Score",
    "Scores",
    "as_scores",
    "compute_scores",
    "read_scores",
    "write_scores",
]
