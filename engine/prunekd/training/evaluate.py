"""Exact accuracy on a validation split: every sample once, whatever the number of processes."""

import torch
from torch import nn
from torch.nn import functional as F

from prunekd.common.distributed import World
from prunekd.common.pixels import to_input
from prunekd.input import Reader, eval_plan
from prunekd.input.prefetch import on_device
from prunekd.store import Split
from prunekd.training.metrics import RunningMetrics
from prunekd.training.settings import Recipe

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(world: World, precision: str) -> torch.autocast:
    """The autocast context of a precision (disabled for fp32)."""
    return torch.autocast(world.device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


@torch.no_grad()
def evaluate(model: nn.Module, reader: Reader, split: Split, recipe: Recipe, world: World) -> dict[str, float]:
    """Mean cross-entropy `loss`, `top1` in [0, 1] and `samples` of `model` on `split` (a collective call)."""
    plan = eval_plan(
        split, batch_size=recipe.eval.batch_size, view=recipe.eval_view, world_size=world.size, rank=world.rank
    )
    metrics = RunningMetrics(world.device)
    was_training = model.training
    model.eval()
    world.broadcast_buffers(model)
    for batch in on_device(reader.epoch(plan), world.device):
        inputs = to_input(batch.images, recipe.mean, recipe.std, DTYPES[recipe.precision])
        with autocast(world, recipe.precision):
            logits = model(inputs)
        metrics.add(F.cross_entropy(logits.float(), batch.labels, reduction="none"), logits, batch.labels)
    model.train(was_training)
    return metrics.read(world)
