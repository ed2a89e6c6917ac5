"""Runs that use everything a plan can hold, fed by every reader."""

import itertools
from pathlib import Path

import pytest
import torch

from prunekd.common.distributed import World
from prunekd.input import READERS
from prunekd.store import Store
from prunekd.training import RunSpec, Trainer, load_recipe
from support import require

WORLD = World(0, 1, torch.device("cpu"))
PACKAGES = {"ffcv": "ffcv", "dali": "nvidia.dali"}
SMALL = ["epochs=4", "batch_size=16", "precision=fp32", "train_view.size=12", "eval_view.size=12"]
PADDED = "train_view.kind=pad_crop"  # not resized, so that all readers give the same pixels and hence losses


def epochs_of(store: Store, reader: str, policy: str, out: Path) -> list[tuple[list[int], list[float]]]:
    """Sample ids and weights of each epoch, in the order seen."""
    recipe = load_recipe("demo", [*SMALL, PADDED, f"dynamic.policy={policy}", "track=[dual]"])
    trainer = Trainer(RunSpec(store=store, recipe=recipe, out=out, reader=reader), WORLD)
    step = trainer.learner.step
    seen: list[tuple[list[int], list[float]]] = []

    def noted(batch, *rest):  # type: ignore[no-untyped-def]
        weights = torch.ones(len(batch.ids)) if batch.weights is None else batch.weights
        seen[-1][0].extend(batch.ids.tolist())
        seen[-1][1].extend(weights.tolist())
        step(batch, *rest)

    trainer.learner.step = noted  # type: ignore[method-assign]
    while not trainer.finished:
        seen.append(([], []))
        trainer.train_epoch()
    trainer.finish()
    return seen


@pytest.mark.parametrize("policy", ["infobatch", "rs2", "ucb"])
@pytest.mark.parametrize("reader", [name for name in READERS if name != "native"])
def test_dynamic_policies_see_and_choose_the_same_with_every_reader(
    reader: str, policy: str, tiny_store: Store, tmp_path: Path
) -> None:
    if reader in PACKAGES:
        require(PACKAGES[reader])
    native = epochs_of(tiny_store, "native", policy, tmp_path / "native")
    assert min(len(ids) for ids, _ in native) < 96  # something was left out
    assert any(sorted(a) != sorted(b) for (a, _), (b, _) in itertools.pairwise(native))
    assert epochs_of(tiny_store, reader, policy, tmp_path / reader) == native
