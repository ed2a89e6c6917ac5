"""The course of a run: which samples an epoch visits, at which size, in how many steps."""

from dataclasses import replace

import numpy as np

from prunekd.common.distributed import World
from prunekd.input import EpochPlan, train_plan
from prunekd.pruning.epoch_policies import DynamicPolicy, Observations, create_dynamic
from prunekd.training.run import RunSpec
from prunekd.training.schedule import resolution
from prunekd.training.settings import Recipe


def steps_per_epoch(recipe: Recipe, kept: int, world: World) -> int:
    """Batches of an epoch over `kept` samples.

    Raises:
        ValueError: a batch larger than that, or not divisible among the processes.
    """
    share = world.size * recipe.accumulate
    if recipe.batch_size % share:
        raise ValueError(
            f"batch_size {recipe.batch_size} is not divisible by {world.size} processes x accumulate "
            f"{recipe.accumulate}"
        )
    if recipe.batch_size > kept:
        raise ValueError(
            f"batch_size {recipe.batch_size} is larger than the {kept} samples kept; "
            f"use --set batch_size={max(1, kept // 4)} or keep more"
        )
    return kept // recipe.batch_size


class Course:
    """Plans epochs; a pure function of the run's settings, the epoch and what was observed of the samples.

    Attributes:
        ids: int64 (n,), ascending, every sample the run may see.
        epochs: how many there are; with a budget in steps or samples the last one may be cut short.
        steps_per_epoch: those of an epoch over all of `ids`.
        total_steps: those of the run, exact unless a dynamic policy leaves samples out.
        dynamic: what chooses the samples of each epoch anew, None for all of them.

    Raises:
        ValueError: a batch larger than the subset or not divisible among the processes; a dynamic policy on samples
            that have weights.
    """

    def __init__(self, spec: RunSpec, world: World) -> None:
        recipe = spec.recipe
        self._spec, self._world = spec, world
        self._split = spec.store.split("train")
        self._weights = None
        self.ids = self._split.ids
        if spec.subset is not None:
            order = np.argsort(spec.subset.ids)
            self.ids = spec.subset.ids[order]
            self._weights = None if spec.subset.weights is None else spec.subset.weights[order]
        self.steps_per_epoch = steps_per_epoch(recipe, len(self.ids), world)
        self._limit = recipe.budget.steps or recipe.budget.samples // recipe.batch_size
        self.total_steps = self._limit or self.steps_per_epoch * recipe.epochs
        self.epochs = -(-self.total_steps // self.steps_per_epoch) if self._limit else recipe.epochs
        self.dynamic: DynamicPolicy | None = None
        if recipe.dynamic.policy:
            if self._weights is not None:
                raise ValueError("a dynamic policy weighs samples itself; give a subset without weights")
            chosen = recipe.dynamic
            self.dynamic = create_dynamic(
                chosen.policy, self.ids, epochs=self.epochs, seed=recipe.seed, parameters=chosen.parameters
            )

    def plan(self, epoch: int, first_step: int, observations: Observations | None) -> EpochPlan:
        """This process's epoch from step `first_step` on; `observations` are those at the epoch's beginning."""
        recipe, world, ids, weights = self._spec.recipe, self._world, self.ids, self._weights
        if self.dynamic:
            assert observations is not None
            ids, weights = self.dynamic.subset_for(epoch, observations)
        plan = train_plan(
            self._split,
            ids=ids,
            weights=weights,
            seed=recipe.seed,
            epoch=epoch,
            batch_size=recipe.batch_size,
            view=replace(recipe.train_view, size=self.size(epoch)),
            world_size=world.size,
            rank=world.rank,
            start_step=first_step,
        )
        return plan if self._spec.cached is None else self._spec.cached.replay(plan, epoch)

    def size(self, epoch: int) -> int:
        """Side of the training views in pixels."""
        return resolution(self._spec.recipe.progressive, self._spec.recipe.train_view.size, epoch / self.epochs)

    def steps(self, plan_steps: int, global_step: int) -> int:
        """Steps of an epoch that offers `plan_steps` when `global_step` steps lie before it."""
        return min(plan_steps, self._limit - global_step) if self._limit else plan_steps

    def finished(self, epoch: int, global_step: int) -> bool:
        """True when the run is over."""
        return global_step >= self._limit if self._limit else epoch >= self.epochs

    def position(self, epoch: int, step: int, epoch_steps: int, global_step: int) -> float:
        """Where in the run a step lies, on a scale of 0 to `total_steps`.

        An epoch that a dynamic policy shortened moves the schedule on by a whole epoch all the same.
        """
        if self._limit or epoch_steps == self.steps_per_epoch:
            return float(global_step) if self._limit else float(epoch * self.steps_per_epoch + step)
        return (epoch + step / epoch_steps) * self.steps_per_epoch
