"""The trainer: epochs of sync-free steps over the retained samples, timed, checkpointed, resumable.

The host reads a figure off the device only every `log_every` steps and at an epoch's end; in between it only
queues work.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from prunekd.common.files import write_json
from prunekd.common.ledger import Ledger
from prunekd.common.pixels import to_input
from prunekd.input import Batch, train_plan
from prunekd.models import ModelCard, create_model, save_trained
from prunekd.training.distributed import World
from prunekd.training.evaluate import DTYPES, autocast, evaluate
from prunekd.training.metrics import RunLog, RunningMetrics
from prunekd.training.optim import create_optimizer
from prunekd.training.randomness import Randomness
from prunekd.training.readers import Readers, open_readers
from prunekd.training.run import RunSpec, prepare_folder, summarize
from prunekd.training.schedule import learning_rate
from prunekd.training.state import Trainable, checkpoints, load_checkpoint, save_checkpoint

Progress = Callable[[dict[str, Any]], None]


class Trainer:
    """One run: `fit()` trains it to the end; `train_epoch()` lets several runs take turns.

    Args:
        spec: what to train.
        world: the processes that train together.
        resume: None starts a new run, `auto` goes on from the newest checkpoint if there is one, a path from that.
        readers: open readers to share with other runs; None opens the run's own and closes them with it.
        say: called with one line about what was chosen and why.

    Raises:
        ValueError: see RunSpec, prepare_folder; batch size not divisible by the number of processes, or larger than
            the subset.
    """

    def __init__(
        self,
        spec: RunSpec,
        world: World,
        *,
        resume: str | None = None,
        readers: Readers | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.spec = spec
        self.world = world
        self.ledger = Ledger()
        self._owns_readers = readers is None
        self.epoch = 0
        self.epochs: list[dict[str, Any]] = []
        self._step_in_epoch = 0
        self._at_epoch_start: dict[str, float] = {}  # the ledger's seconds then
        self._bytes_booked = (0, 0)
        self._progress: Progress | None = None
        self._say = say if world.is_main else lambda line: None
        self._terminated = False
        with self.ledger.phase("setup"):
            self._build(resume, readers)

    def _build(self, resume: str | None, readers: Readers | None) -> None:
        spec, recipe, world = self.spec, self.spec.recipe, self.world
        self.steps_per_epoch = spec.kept // recipe.batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"batch_size {recipe.batch_size} is larger than the {spec.kept} samples kept; "
                f"use --set batch_size={max(1, spec.kept // 4)} or keep more"
            )
        if recipe.batch_size % world.size:
            raise ValueError(f"batch_size {recipe.batch_size} is not divisible by {world.size} processes")
        if world.is_main:
            prepare_folder(spec, resume)
        world.barrier()
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self.eval_every = recipe.eval.every_epochs
        if recipe.eval.scale:
            self.eval_every = max(1, round(self.eval_every / spec.keep))
        classes = spec.store.classes
        model = create_model(recipe.model.name, len(classes), seed=recipe.seed, drop_path=recipe.model.drop_path)
        self.model: nn.Module = model.to(world.device).to(memory_format=torch.channels_last)
        self.objective = spec.objective()
        self.metrics = RunningMetrics(world.device)
        scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "fp16")
        optimizer = create_optimizer(self.model, recipe.optimizer)
        randomness = Randomness(recipe.seed + world.rank, world.device)
        self.parts = Trainable(self.model, optimizer, scaler, self.metrics.sums, randomness)
        self.readers = readers or open_readers(spec, world)
        self._warm_up()
        resumed_step = self._restore(resume)
        self.ddp = world.wrap(self.model)
        self.log = RunLog(spec.out, resumed_step) if world.is_main else None
        self._last_checkpoint = time.monotonic()

    def on_progress(self, progress: Progress) -> None:
        """Call `progress` with plain values every `log_every` steps and after every epoch (main process only)."""
        self._progress = progress if self.world.is_main else None

    def _warm_up(self) -> None:
        """Have the kernels compiled before the clock of the first epoch starts, on arrays of the run's own kinds."""
        recipe, device = self.spec.recipe, self.world.device
        dtype = DTYPES[recipe.precision]
        pixels = torch.zeros(2, recipe.train_view.size, recipe.train_view.size, 3, dtype=torch.uint8, device=device)
        to_input(pixels.permute(0, 3, 1, 2), recipe.mean, recipe.std, dtype)
        logits = torch.zeros(2, len(self.spec.store.classes), dtype=dtype, device=device, requires_grad=True)
        teacher = self.spec.teacher
        targets = None if teacher is None else torch.zeros_like(logits, dtype=teacher.settings.dtype)
        self.objective(logits, targets, torch.zeros(2, dtype=torch.int64, device=device), None).mean().backward()

    @property
    def finished(self) -> bool:
        """True when all epochs are done."""
        return self.epoch >= self.spec.recipe.epochs

    @property
    def global_step(self) -> int:
        """Optimizer steps done."""
        return self.epoch * self.steps_per_epoch + self._step_in_epoch

    def fit(self) -> dict[str, Any]:
        """Train what is left of the run and return the contents of result.json."""
        with self._stoppable():
            while not self.finished:
                self.train_epoch()
        return self.finish()

    def train_epoch(self) -> dict[str, Any]:
        """Train to the end of the current epoch, evaluate if it is due, and return the epoch's record."""
        with self.ledger.phase("other"), self.parts.randomness.active():
            recipe = self.spec.recipe
            if self._step_in_epoch == 0:
                self._at_epoch_start = dict(self.ledger.seconds)
            self._bytes_booked = self._bytes_read()
            self.ddp.train()
            for batch in self._batches():
                with self.ledger.phase("step"):
                    self._step(batch)
                self._step_in_epoch += 1
                if self._step_in_epoch % recipe.log_every == 0:
                    self._report_interval()
                if self._step_in_epoch < self.steps_per_epoch:
                    self._maybe_checkpoint()
            with self.ledger.phase("step"):
                record: dict[str, Any] = {"epoch": self.epoch, **self._read_metrics()}
            self.metrics.reset()
            self._book_bytes()
            record["data_wait_seconds"] = self._this_epoch("data_wait")
            record["seconds"] = self._this_epoch("data_wait", "step")
            self.epoch, self._step_in_epoch = self.epoch + 1, 0
            if self.readers.val and (self.finished or self.epoch % self.eval_every == 0):
                record |= self._evaluate()
            self.epochs.append(record)
            self._tell("epoch", record)
            self._maybe_checkpoint()
            return record

    def finish(self) -> dict[str, Any]:
        """Write model.safetensors and result.json, close everything, and return the result."""
        result = summarize(self.spec, self.epochs, self.ledger)
        if self.world.is_main:
            spec, recipe = self.spec, self.spec.recipe
            card = ModelCard(
                model=recipe.model.name,
                num_classes=len(spec.store.classes),
                mean=recipe.mean,
                std=recipe.std,
                size=recipe.eval_view.size,
                classes=spec.store.classes,
            )
            save_trained(spec.out / "model.safetensors", self.model, card)
            write_json(spec.out / "result.json", result)
        self.close()
        return result

    def close(self) -> None:
        """Close readers and log files."""
        if self._owns_readers:
            self.readers.close()
        if self.log:
            self.log.close()

    def _batches(self) -> Iterator[Batch]:
        recipe, spec, world = self.spec.recipe, self.spec, self.world
        plan = train_plan(
            spec.store.split("train"),
            ids=None if spec.subset is None else spec.subset.ids,
            weights=None if spec.subset is None else spec.subset.weights,
            seed=recipe.seed,
            epoch=self.epoch,
            batch_size=recipe.batch_size,
            view=recipe.train_view,
            world_size=world.size,
            rank=world.rank,
            start_step=self._step_in_epoch,
        )
        iterator = iter(self.readers.train.epoch(plan))
        try:
            while True:
                with self.ledger.phase("data_wait"):
                    batch = next(iterator, None)
                if batch is None:
                    return
                yield batch
        finally:
            iterator.close()  # type: ignore[attr-defined]

    def _step(self, batch: Batch) -> None:
        recipe, device = self.spec.recipe, self.world.device
        optimizer, scaler = self.parts.optimizer, self.parts.scaler
        rate = learning_rate(recipe.schedule, recipe.optimizer.lr, self.global_step, self.total_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        images = batch.images.to(device, non_blocking=True)
        labels = batch.labels.to(device, non_blocking=True)
        weights = None if batch.weights is None else batch.weights.to(device, non_blocking=True)
        inputs = to_input(images, recipe.mean, recipe.std, DTYPES[recipe.precision])
        teacher = self.spec.teacher
        targets = None
        if teacher is not None and self.objective.needs_teacher:
            same = (teacher.card.mean, teacher.card.std) == (recipe.mean, recipe.std)
            targets = teacher.from_normalized(inputs) if same else teacher(images)
        with autocast(self.world, recipe.precision):
            logits = self.ddp(inputs)
        losses = self.objective(logits, targets, labels, weights)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(losses.mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        self.metrics.add(losses, logits, labels)

    def _evaluate(self) -> dict[str, Any]:
        assert self.readers.val is not None
        with self.ledger.phase("eval"):
            split = self.spec.store.split("val")
            found = evaluate(self.model, self.readers.val, split, self.spec.recipe, self.world)
        return {"val_loss": found["loss"], "val_top1": found["top1"], "val_samples": found["samples"]}

    def _read_metrics(self) -> dict[str, float]:
        values = self.metrics.read(self.world)
        if not np.isfinite(values["loss"]):
            latest = checkpoints(self.spec.out / "checkpoints")[-1:]
            raise RuntimeError(
                f"the loss is {values['loss']} at step {self.global_step} (epoch {self.epoch}): lower optimizer.lr, "
                f"or use precision bf16; last good checkpoint: {latest[0] if latest else 'none yet'}"
            )
        return values

    def _this_epoch(self, *phases: str) -> float:
        """Seconds booked to `phases` since the epoch began."""
        return self.ledger.get(*phases) - sum(self._at_epoch_start.get(name, 0.0) for name in phases)

    def _bytes_read(self) -> tuple[int, int]:
        return self.readers.train.bytes_read, self.readers.train.payload_bytes

    def _book_bytes(self) -> None:
        """Move what the reader has read since the last call into the ledger."""
        now = self._bytes_read()
        for name, after, before in zip(("bytes_read", "payload_bytes"), now, self._bytes_booked, strict=True):
            self.ledger.count(name, after - before)
        self._bytes_booked = now

    def _report_interval(self) -> None:
        with self.ledger.phase("step"):
            values: dict[str, Any] = {"epoch": self.epoch, **self._read_metrics()}
        busy = self._this_epoch("data_wait", "step")
        values["lr"] = self.parts.optimizer.param_groups[0]["lr"]
        values["data_wait_share"] = self._this_epoch("data_wait") / busy
        values["images_per_second"] = values["samples"] / busy
        self._tell("train", values)

    def _tell(self, kind: str, values: dict[str, Any]) -> None:
        if self.log:
            self.log.write(kind, self.global_step, values)
        if self._progress:
            self._progress({"kind": kind, "step": self.global_step, "total_steps": self.total_steps, **values})

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def _maybe_checkpoint(self) -> None:
        settings, step = self.spec.recipe.checkpoint, self.global_step
        if settings.every_steps and step % settings.every_steps == 0:
            self.checkpoint()
            return
        # processes must agree on a decision made by clock or signal; asking costs a sync, so ask seldom
        if self.world.size > 1 and self._step_in_epoch % self.spec.recipe.log_every:
            return
        overdue = time.monotonic() - self._last_checkpoint > 60 * settings.every_minutes
        if self.world.agree(overdue or self._terminated):
            path = self.checkpoint()
            if self.world.agree(self._terminated):
                self.close()
                raise RuntimeError(f"stopped by a signal; go on with `--resume auto` from {path}")

    def checkpoint(self) -> Path | None:
        """Write a checkpoint of this moment (on the main process) and return its folder."""
        self._last_checkpoint = time.monotonic()
        if not self.world.is_main:
            return None
        self._book_bytes()
        with self.ledger.phase("checkpoint"):
            position = {
                "epoch": self.epoch,
                "step_in_epoch": self._step_in_epoch,
                "global_step": self.global_step,
                "epochs": self.epochs,
                "at_epoch_start": self._at_epoch_start,
                "ledger": self.ledger.to_dict(),
            }
            keep_last = self.spec.recipe.checkpoint.keep_last
            return save_checkpoint(self.spec.out / "checkpoints", self.global_step, self.parts, position, keep_last)

    def _restore(self, resume: str | None) -> int:
        """Go on from the newest readable checkpoint; returns its step, 0 for a fresh start."""
        if resume is None:
            return 0
        candidates = [Path(resume)] if resume != "auto" else checkpoints(self.spec.out / "checkpoints")[::-1]
        for path in candidates:
            try:
                position = load_checkpoint(path, self.parts)
            except ValueError as error:
                if resume != "auto":
                    raise
                self._say(f"{error}; trying the one before")
                continue
            self.epoch, self._step_in_epoch = position["epoch"], position["step_in_epoch"]
            self.epochs, self._at_epoch_start = position["epochs"], position["at_epoch_start"]
            self.ledger.restore(position["ledger"])
            self._say(f"resumed from {path}: epoch {self.epoch}, step {self._step_in_epoch}")
            return self.global_step
        return 0

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Between steps, SIGTERM (a scheduler's notice) leads to a checkpoint and a clean stop."""

        def note(_number: int, _frame: FrameType | None) -> None:
            self._terminated = True

        previous = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
