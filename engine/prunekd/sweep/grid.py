"""What a sweep trains: its settings, its runs, and what would make it fail late, found out before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prunekd.common.registry import unknown
from prunekd.distill import CachedTeacher, OnlineTeacher
from prunekd.pruning.policies import POLICIES
from prunekd.pruning.scores import Scores
from prunekd.store import Store
from prunekd.sweep.arms import ARMS, Arm
from prunekd.training import Recipe

WHOLE = "all"  # policy of a run in which nothing was selected


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """Settings of a sweep.

    keeps are in (0, 1]; arms are names of ARMS or of own_arms; policies choose the samples of arms that fix none;
    teacher, cached (soft labels) and scores are needed by the arms and policies that use them; costs are seconds spent
    once before the sweep (score, teacher, labels, compact) and enter the honest speed-up. time_only is the batches of
    an epoch to time instead of training (0: train); cold drops the store's training pages from the operating system's
    cache before every epoch.
    """

    store: Store
    recipe: Recipe
    out: Path
    keeps: tuple[float, ...]
    arms: tuple[str, ...]
    own_arms: tuple[Arm, ...] = ()
    policies: tuple[str, ...] = ("random",)
    seeds: tuple[int, ...] = (0,)
    teacher: OnlineTeacher | None = None
    cached: CachedTeacher | None = None
    class_scale: Tensor | None = None
    scores: Scores | None = None
    reader: str = "native"
    on_error: str = "raise"
    workers: int | None = None
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)
    time_only: int = 0
    cold: bool = False

    def __post_init__(self) -> None:
        known = self.known_arms
        for name in self.arms:
            if name not in known:
                raise unknown("arm", name, known)
        for policy in self.used_policies:
            if policy not in POLICIES:
                raise unknown("policy", policy, POLICIES)
        self._refuse_fixed_seeds()
        for keep in self.keeps:
            if not 0 < keep <= 1:
                raise ValueError(f"keep is {keep}; a keep ratio is the fraction kept, in (0, 1]")
        if self.time_only:
            self._refuse_untimeable()
        elif "val" not in self.store.splits:
            raise ValueError(
                f"{self.store.path} has no validation split to measure accuracy on; "
                "convert a source with val/, or use `prunekd convert --val-fraction 0.1`"
            )

    def _refuse_fixed_seeds(self) -> None:
        """A seed that does not come from `seeds` would be ignored, or make several runs one."""
        if self.recipe.seed:
            raise ValueError(
                f"seed is {self.recipe.seed}; a sweep trains the seeds 0 to N - 1 of --seeds N: leave seed out, or "
                f"train that seed alone with `prunekd train --set seed={self.recipe.seed}`"
            )
        for arm in self.own_arms:
            fixed = [setting for setting in arm.settings if setting.split("=")[0].strip() == "seed"]
            if fixed:
                raise ValueError(
                    f"arm {arm.name!r} sets {fixed[0]}; its runs of different seeds would all be that one: leave seed "
                    "out, and use --seeds N for the seeds 0 to N - 1"
                )

    def _refuse_untimeable(self) -> None:
        for name in self.arms:
            arm = self.known_arms[name]
            if arm.dynamic and "dynamic.policy=rs2" not in arm.settings:
                raise ValueError(
                    f"arm {name!r} cannot be timed from a few batches: how many samples it leaves out depends on their "
                    "losses; leave the arm or --time-only out"
                )

    @property
    def known_arms(self) -> dict[str, Arm]:
        """Every arm this sweep may name, by name."""
        return ARMS | {arm.name: arm for arm in self.own_arms}

    @property
    def used_arms(self) -> dict[str, Arm]:
        """The arms that are trained: those asked for, and those whose full run they are compared with."""
        known = self.known_arms
        names = [name for arm in self.arms for name in ((known[arm].reference, arm) if 1 in self.keeps else (arm,))]
        return {name: known[name] for name in names}

    @property
    def used_policies(self) -> tuple[str, ...]:
        """The policies that select for some arm at some keep below 1."""
        arms = [self.known_arms[name] for name in self.arms]
        names = [policy for arm in arms for policy in ((arm.policy,) if arm.policy else self.policies)]
        return tuple(policy for policy in dict.fromkeys(names) if policy != WHOLE)

    @property
    def needs_scores(self) -> bool:
        """True if some pruned run ranks by a score."""
        return min(self.keeps) < 1 and any(POLICIES[policy].needs_score for policy in self.used_policies)

    def check_inputs(self) -> None:
        """Raise ValueError if an arm or policy lacks the teacher, soft labels or scores it needs."""
        for arm in self.used_arms.values():
            if arm.teacher == "online" and self.teacher is None:
                raise ValueError(f"arm {arm.name!r} distils and needs a teacher; give --teacher, or only the arm plain")
            if arm.teacher == "cached" and self.cached is None:
                raise ValueError(f"arm {arm.name!r} needs soft labels; give --labels, or --teacher to make them with")
        for policy in self.used_policies if self.needs_scores else ():
            if POLICIES[policy].needs_score and self.scores is None:
                raise ValueError(f"policy {policy!r} ranks by a score; give --scores or a --teacher to score with")

    def check_keeps(self) -> None:
        """Raise ValueError if a keep asks for more than a policy offers: ccs and window give some samples up for good.

        How many those are depends on the number of samples alone, so made-up scores tell before any are computed.
        """
        split = self.store.split("train")
        sizes = np.bincount(split.labels, minlength=len(self.store.classes))
        made_up = np.linspace(0, 1, len(split.ids))
        for name in self.used_policies:
            policy = POLICIES[name]
            offered = len(
                policy.rank(made_up, split.labels, split.ids, 0, balance=policy.default_balance, **policy.parameters)
            )
            for keep in (keep for keep in self.keeps if keep < 1):
                if policy.count(keep, sizes, policy.default_balance) > offered:
                    raise ValueError(
                        f"keep {keep:g} is more than policy {name} offers: {offered} of {len(split.ids)} samples "
                        f"({offered / len(split.ids):.3g}); leave out that ratio or that policy"
                    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run of a sweep; `epochs` differ from the recipe's where the arm trains for fewer."""

    name: str
    arm: str
    policy: str
    keep: float
    seed: int
    epochs: int


def plan_runs(spec: SweepSpec) -> list[PlannedRun]:
    """All runs of a sweep, seed by seed. At keep 1 there is nothing to select, so the policy is `all`."""
    return [run for seed in spec.seeds for keep in spec.keeps for run in _runs_at(spec, keep, seed)]


def _runs_at(spec: SweepSpec, keep: float, seed: int) -> list[PlannedRun]:
    runs = []
    for arm in _arms_at(spec, keep):
        epochs = max(1, round(keep * spec.recipe.epochs)) if arm.fewer_epochs else spec.recipe.epochs
        policies: Sequence[str] = (arm.policy,) if arm.policy else spec.policies
        for policy in (WHOLE,) if keep == 1 else policies:
            name = f"{arm.name}-{policy}-keep{keep:g}-seed{seed}"
            runs.append(PlannedRun(name=name, arm=arm.name, policy=policy, keep=keep, seed=seed, epochs=epochs))
    return runs


def _arms_at(spec: SweepSpec, keep: float) -> list[Arm]:
    """The arms trained at a ratio; on all data several arms may share one run."""
    arms = [spec.known_arms[name] for name in spec.arms]
    return list({arm.reference: spec.known_arms[arm.reference] for arm in arms}.values()) if keep == 1 else arms
