"""Training dynamics: scores that a training run gathers in passing."""

from prunekd.pruning.training_dynamics.definitions import DYNAMICS
from prunekd.pruning.training_dynamics.tracker import Tracker, tracked_scores

__all__ = ["DYNAMICS", "Tracker", "tracked_scores"]
