"""Scores: one float per sample, from one pass of a teacher. A new score is one file here and one line in SCORES."""

from prunekd.pruning.scores.compute import compute_scores
from prunekd.pruning.scores.registry import SCORES
from prunekd.pruning.scores.score import Outputs, Score
from prunekd.pruning.scores.table import Scores, read_scores, write_scores

__all__ = ["SCORES", "Outputs", "Score", "Scores", "compute_scores", "read_scores", "write_scores"]
