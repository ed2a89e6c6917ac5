"""Training on a GPU: nothing waits for the device between log intervals, and every precision learns."""

from pathlib import Path
from typing import Any

import pytest
import torch

from prunekd.common.distributed import World
from prunekd.distill import OnlineTeacher, TeacherSettings
from prunekd.models import ModelCard, create_model
from prunekd.store import Store
from prunekd.training import RunSpec, Trainer, load_recipe

pytestmark = pytest.mark.gpu

SMALL = ["epochs=6", "batch_size=16", "log_every=1000", "train_view.size=12", "eval_view.size=12"]


def run(store: Store, out: Path, *overrides: str, **extra: Any) -> Trainer:
    recipe = load_recipe("demo", [*SMALL, *overrides])
    return Trainer(RunSpec(store=store, recipe=recipe, out=out, **extra), World(0, 1, torch.device("cuda", 0)))


def teacher_for(store: Store) -> OnlineTeacher:
    card = ModelCard(
        model="cifar_resnet8", num_classes=4, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2), size=12, classes=store.classes
    )
    return OnlineTeacher(
        create_model("cifar_resnet8", 4, seed=1), card, TeacherSettings(device=torch.device("cuda", 0))
    )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("extra", [(), ("track=[dual,aum]", "dynamic.policy=infobatch", "ema.decay=0.9")])
def test_no_step_waits_for_the_device(
    precision: str, extra: tuple[str, ...], tiny_store: Store, tmp_path: Path
) -> None:
    trainer = run(tiny_store, tmp_path / "run", f"precision={precision}", *extra, teacher=teacher_for(tiny_store))
    step, steps = trainer.learner.step, 0

    def strict(*args: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 1:  # the first one allocates
            step(*args)
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(*args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    trainer.learner.step = strict  # type: ignore[method-assign]
    trainer.fit()
    assert steps > 12


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns(precision: str, tiny_store: Store, tmp_path: Path) -> None:
    result = run(tiny_store, tmp_path / "run", f"precision={precision}").fit()
    assert result["top1"] > 0.9
