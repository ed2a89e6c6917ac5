"""The student and what changes it: one optimizer step, queued on the device without reading anything back."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from prunekd.common.distributed import World
from prunekd.common.pixels import renormalize, to_input
from prunekd.distill import SoftLabels
from prunekd.input import Batch
from prunekd.models import check_logits, create_model
from prunekd.training.checkpoint import Trainable
from prunekd.training.ema import Ema
from prunekd.training.evaluate import DTYPES, autocast
from prunekd.training.metrics import RunningMetrics
from prunekd.training.mix import Mixing, draw_mixing, mix_images, mix_labels
from prunekd.training.optim import create_optimizer
from prunekd.training.run import RunSpec
from prunekd.training.samples import SampleState
from prunekd.training.watch import LossWatch

logger = logging.getLogger(__name__)


class Learner:
    """A run's student with optimizer, scaler, average, objective and metrics.

    Args:
        samples: where figures of single samples go, None if nobody wants them.

    Raises:
        ValueError: model settings that cannot be had; see create_optimizer.
    """

    def __init__(self, spec: RunSpec, world: World, samples: SampleState | None) -> None:
        recipe = spec.recipe
        self._spec, self._world, self._samples = spec, world, samples
        self.model = create_student(spec, world)
        self.objective = spec.objective(world.device)
        self.metrics = RunningMetrics(world.device)
        self.watch = LossWatch()
        scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "fp16")
        self.parts = Trainable(self.model, create_optimizer(self.model, recipe.optimizer), scaler)
        self.ema = Ema(self.model, recipe.ema.decay) if recipe.ema.decay else None
        self._forward: nn.Module = self.model

    @property
    def best_model(self) -> nn.Module:
        """What is evaluated and saved: the average of the weights if there is one."""
        return self.ema.model if self.ema else self.model

    def connect(self) -> None:
        """Wrap the model for training in this world; its weights must be final, since they are broadcast here."""
        self._forward = self._world.wrap(self.model)

    def warm_up(self) -> None:
        """Have the kernels compiled before the clock of the first epoch starts, on arrays of the run's own kinds."""
        recipe, device = self._spec.recipe, self._world.device
        dtype = DTYPES[recipe.precision]
        size = recipe.train_view.size
        pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8, device=device)
        to_input(pixels.permute(0, 3, 1, 2), recipe.mean, recipe.std, dtype)
        logits = torch.zeros(2, len(self._spec.store.classes), dtype=dtype, device=device, requires_grad=True)
        teacher, cached = self._spec.teacher, self._spec.cached
        targets: Tensor | SoftLabels | None = None
        if cached is not None:
            targets = cached.lookup(torch.from_numpy(np.resize(cached.ids, 2)), 0).to(device)
        elif teacher is not None:
            targets = torch.zeros_like(logits, dtype=teacher.dtype)
        labels = torch.zeros(2, dtype=torch.int64, device=device)
        self.objective(logits, targets, labels, None).mean().backward()

    def compile(self, batch_size: int) -> None:
        """Run the student through torch.compile, tried out on zeros; falls back to eager, and says so, if that fails.

        Args:
            batch_size: samples per forward pass.
        """
        recipe, device = self._spec.recipe, self._world.device
        compiled = torch.compile(self._forward, dynamic=False)
        assert isinstance(compiled, nn.Module)
        size = recipe.train_view.size
        example = torch.zeros(batch_size, 3, size, size, dtype=DTYPES[recipe.precision], device=device)
        buffers = {name: tensor.clone() for name, tensor in self.model.named_buffers()}
        try:
            with (
                torch.random.fork_rng([device] if device.type == "cuda" else []),
                autocast(self._world, recipe.precision),
            ):
                compiled(example.to(memory_format=torch.channels_last)).sum().backward()
        except Exception as error:  # the compiler's errors have no common class
            logger.warning(f"the student is not compiled: {type(error).__name__}: {str(error).splitlines()[0]}")
        else:
            self._forward = compiled
            logger.info("the student is compiled")
        for name, tensor in self.model.named_buffers():
            tensor.copy_(buffers[name])
        self.parts.optimizer.zero_grad(set_to_none=True)

    def step(self, batch: Batch, number: int, rate: float, view_index: int) -> None:
        """Queue optimizer step `number` of the run.

        Args:
            batch: images, labels and weights on the device, ids on the host.
            rate: learning rate.
            view_index: which of the samples' views the batch shows.
        """
        recipe, (model, optimizer, scaler) = self._spec.recipe, self._trained()
        for group in optimizer.param_groups:
            group["lr"] = rate
        mixing = draw_mixing(recipe.mix, recipe.seed, number, *batch.images.shape[2:])
        optimizer.zero_grad(set_to_none=True)
        count, parts = len(batch.ids), recipe.accumulate
        for part in range(parts):
            some = _slice(batch, slice(part * count // parts, (part + 1) * count // parts))
            with self._gradients_shared(part == parts - 1):
                losses = self._losses(some, mixing, view_index)
                scaler.scale(losses.sum() / count).backward()
            self.watch.add(number, some.ids, losses)
        if recipe.clip_norm:
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), recipe.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        if self.ema:
            self.ema.update()

    def _trained(self) -> tuple[nn.Module, torch.optim.Optimizer, torch.amp.GradScaler]:
        return self.parts.model, self.parts.optimizer, self.parts.scaler

    def _losses(self, batch: Batch, mixing: Mixing | None, view_index: int) -> Tensor:
        """Weighted losses (B,) of a batch, noted in metrics and per sample."""
        recipe = self._spec.recipe
        inputs = to_input(batch.images, recipe.mean, recipe.std, DTYPES[recipe.precision])
        labels = batch.labels
        if mixing is not None:
            inputs, labels = mix_images(inputs, mixing), mix_labels(labels, len(self._spec.store.classes), mixing)
        targets = self._targets(batch, inputs, mixing is not None, view_index)
        with autocast(self._world, recipe.precision):
            logits = self._forward(inputs)
        stats = None
        if self._samples is not None and self._samples.tracker is not None:
            losses, stats = self.objective(logits, targets, labels, batch.weights, stats=True)
        else:
            losses = self.objective(logits, targets, labels, batch.weights)
        if self._samples is not None:
            plain = losses.detach() if batch.weights is None else losses.detach() / batch.weights
            self._samples.add(batch.ids, plain, stats)
        self.metrics.add(losses, logits, batch.labels)
        return losses

    def _targets(self, batch: Batch, inputs: Tensor, mixed: bool, view_index: int) -> Tensor | SoftLabels | None:
        """What the teacher says of the images as the student sees them."""
        recipe, teacher, cached = self._spec.recipe, self._spec.teacher, self._spec.cached
        if not self.objective.needs_teacher:
            return None
        if cached is not None:
            return cached.lookup(batch.ids, view_index).to(self._world.device)
        assert teacher is not None
        here, there = (recipe.mean, recipe.std), (teacher.card.mean, teacher.card.std)
        if here == there:
            return teacher.from_normalized(inputs)
        return teacher.from_normalized(renormalize(inputs, here, there)) if mixed else teacher(batch.images)

    @contextmanager
    def _gradients_shared(self, last: bool) -> Iterator[None]:
        """Exchange gradients between processes with the last part of a batch only."""
        no_sync: AbstractContextManager[object] = nullcontext()
        if self._world.size > 1 and not last:
            no_sync = self._forward.no_sync()  # type: ignore[operator]
        with no_sync:
            yield


def _slice(batch: Batch, part: slice) -> Batch:
    weights = None if batch.weights is None else batch.weights[part]
    return Batch(batch.images[part], batch.labels[part], batch.ids[part], weights)


def create_student(spec: RunSpec, world: World) -> nn.Module:
    """The student on its device: a new one as the recipe says, or the user's module itself.

    Raises:
        ValueError: an unknown model, one that does not take the views, or settings that it cannot have.
    """
    recipe, num_classes = spec.recipe, len(spec.store.classes)
    settings, size = recipe.model, recipe.eval_view.size
    if spec.model is None:
        model = create_model(settings.name, num_classes, seed=recipe.seed, drop_path=settings.drop_path, size=size)
    else:
        model = spec.model
    check_logits(model, num_classes, size, "the student")
    for other in {recipe.train_view.size, recipe.progressive.start} - {0, size}:
        try:
            check_logits(model, num_classes, other, "the student")
        except ValueError as error:
            raise ValueError(
                f"{spec.model_name} takes images of {size} x {size} pixels (eval_view.size), but not the training's of "
                f"{other} x {other}; set train_view.size to {size} and progressive.start to 0"
            ) from error
    if settings.checkpoint_activations:
        if not hasattr(model, "set_grad_checkpointing"):
            raise ValueError(f"{spec.model_name} cannot recompute activations; set model.checkpoint_activations=false")
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    if settings.sync_batch_norm:
        if world.device.type != "cuda":
            raise ValueError("model.sync_batch_norm works on GPUs only (torch's SyncBatchNorm has no CPU version)")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model.to(world.device).to(memory_format=torch.channels_last)
