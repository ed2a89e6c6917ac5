"""Training dynamics: scores that a training run gathers in passing."""

from prunekd.pruning.dynamics.definitions import DYNAMICS
from prunekd.pruning.dynamics.tracker import Tracker, tracked_scores

__all__ = ["DYNAMICS", "Tracker", "tracked_scores"]
