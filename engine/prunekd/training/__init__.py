"""The trainer: recipe, loop, checkpoints, distribution."""

from prunekd.training.loop import Trainer
from prunekd.training.recipe import load_recipe, recipe_names
from prunekd.training.run import RunSpec
from prunekd.training.settings import Recipe

__all__ = ["Recipe", "RunSpec", "Trainer", "load_recipe", "recipe_names"]
