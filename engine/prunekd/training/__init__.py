"""The trainer: recipe, loop, checkpoints, distribution."""
