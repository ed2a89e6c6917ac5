"""The trainer: epochs of sync-free steps over the retained samples, timed, checkpointed, resumable.

The host reads a figure off the device only every `log_every` steps and at an epoch's end; in between it only
queues work.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prunekd.common.distributed import World
from prunekd.common.files import write_json
from prunekd.common.ledger import Ledger
from prunekd.common.lock import locked
from prunekd.distill import OnlineTeacher
from prunekd.input import Batch, EpochPlan
from prunekd.input.prefetch import on_device
from prunekd.training.account import ReaderAccount
from prunekd.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from prunekd.training.course import Course
from prunekd.training.evaluate import evaluate
from prunekd.training.learner import Learner
from prunekd.training.metrics import RunLog
from prunekd.training.outcome import save_student, save_tracked, summarize
from prunekd.training.randomness import Randomness
from prunekd.training.readers import Readers, open_readers
from prunekd.training.run import RunSpec, begin_folder, check_folder
from prunekd.training.samples import SampleState
from prunekd.training.schedule import learning_rate
from prunekd.training.signals import Requests
from prunekd.training.snapshot import collect, spread
from prunekd.training.threads import StepThreads
from prunekd.training.watch import require_finite

logger = logging.getLogger(__name__)

Progress = Callable[[dict[str, Any]], None]


class Trainer:
    """One run: `fit()` trains it to the end; `train_epoch()` lets several runs take turns.

    Args:
        spec: what to train.
        world: the processes that train together.
        resume: None starts a new run, `auto` goes on from the newest checkpoint if there is one, a path from that.
        readers: open readers to share with other runs; None opens the run's own and closes them with it.
        ledger: where to book, if not in one that begins here.

    Raises:
        ValueError: see RunSpec, check_folder, Course, Learner. The folder is then left as it was.
        RuntimeError: another process is writing to the folder.
    """

    def __init__(
        self,
        spec: RunSpec,
        world: World,
        *,
        resume: str | None = None,
        readers: Readers | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.spec = spec
        self.world = world
        self.ledger = ledger or Ledger()
        self.epoch = 0
        self.global_step = 0
        self.epochs: list[dict[str, Any]] = []
        self.requests = Requests()
        self._threads = StepThreads(world.device)
        self._step_in_epoch = 0
        self._epoch_steps = 0
        self._at_epoch_start: dict[str, float] = {}  # the ledger's seconds then
        self._progress: Progress | None = None
        with ExitStack() as opened:
            with self.ledger.phase("setup"):
                self._build(resume, readers, opened)
            self._open = opened.pop_all()  # closed by `close`

    def _build(self, resume: str | None, readers: Readers | None, opened: ExitStack) -> None:
        """Everything that may fail comes before the first file in the run's folder."""
        spec, recipe, world = self.spec, self.spec.recipe, self.world
        self.course = Course(spec, world)
        described = spec.describe()
        if world.is_main:
            opened.enter_context(locked(spec.out, "run"))
            check_folder(spec.out, described, resume)
        world.barrier()
        self.samples = self._sample_state()
        self.learner = Learner(spec, world, self.samples)
        self.randomness = Randomness(recipe.seed + world.rank, world.device)
        self.eval_every = recipe.eval.every_epochs
        if recipe.eval.scale:
            self.eval_every = max(1, round(self.eval_every / spec.keep))
        self.readers = readers or open_readers(spec, world)
        if readers is None:
            opened.callback(self.readers.close)
        self._account = ReaderAccount(self.readers.train, self.ledger, world)
        if spec.teacher is not None:
            with self.ledger.phase("compile"):
                self._prepare_teacher(spec.teacher)
        self.learner.warm_up()
        self._restore(resume)
        self.learner.connect()
        if recipe.compile:
            with self.ledger.phase("compile"):
                self.learner.compile(self._forward_size)
        self.log = None
        if world.is_main:
            begin_folder(spec.out, described)
            self.log = RunLog(spec.out, self.global_step)
            opened.callback(self.log.close)
        self._last_checkpoint = time.monotonic()

    @property
    def _forward_size(self) -> int:
        """Samples per forward pass of this process."""
        return self.spec.recipe.batch_size // (self.world.size * self.spec.recipe.accumulate)

    def _prepare_teacher(self, teacher: OnlineTeacher) -> None:
        """Have the teacher choose how it runs on real images, at the size the run ends with."""
        course, recipe = self.course, self.spec.recipe
        plan = EpochPlan(
            split=self.spec.store.split("train"),
            ids=course.ids[: self._forward_size],
            batch_size=self._forward_size,
            view=replace(recipe.train_view, size=course.size(course.epochs - 1)),
            seed=recipe.seed,
            view_index=0,
        )
        (batch,) = self.readers.train.epoch(plan)
        images = batch.images.to(self.world.device, memory_format=torch.channels_last, copy=True)
        teacher.prepare(images, course.total_steps * recipe.accumulate)

    def _sample_state(self) -> SampleState | None:
        course, track = self.course, self.spec.recipe.track
        if not (course.dynamic or track):
            return None
        momentum = course.dynamic.momentum if course.dynamic else None
        return SampleState(course.ids, track, course.epochs, momentum, self.world.device)

    def on_progress(self, progress: Progress) -> None:
        """Call `progress` with plain values every `log_every` steps and after every epoch (main process only)."""
        self._progress = progress if self.world.is_main else None

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run; an upper bound where a dynamic policy leaves samples out."""
        return self.course.total_steps

    @property
    def finished(self) -> bool:
        """True when the run's budget is used up."""
        return self.course.finished(self.epoch, self.global_step)

    def fit(self) -> dict[str, Any]:
        """Train what is left of the run, return the contents of result.json, and close everything.

        Raises:
            RuntimeError: stopped by a signal (a checkpoint was written), or a loss that is not finite.
            Interrupted: stopped by Ctrl-C (a checkpoint was written). A second Ctrl-C raises KeyboardInterrupt.
        """
        try:
            with self.requests.listening():
                while not self.finished:
                    self.train_epoch()
            return self.finish()
        finally:
            self.close()

    def train_epoch(self) -> dict[str, Any]:
        """Train to the end of the current epoch, evaluate if it is due, and return the epoch's record."""
        with self.ledger.phase("other"), self.randomness.active():
            if self._step_in_epoch == 0:
                self._at_epoch_start = dict(self.ledger.seconds)
            self._account.begin()
            self.learner.model.train()
            plan = self._plan()
            for batch in self._batches(plan):
                with self.ledger.phase("step"), self._threads.step():
                    rate = self._learning_rate()
                    self.learner.step(batch, self.global_step, rate, plan.view_index)
                self._step_in_epoch += 1
                self.global_step += 1
                if self._step_in_epoch % self.spec.recipe.log_every == 0:
                    self._report_interval()
                if self._step_in_epoch == self._epoch_steps:
                    break
                self._maybe_checkpoint()
            record = self._end_epoch()
            self._maybe_checkpoint()
            return record

    def _end_epoch(self) -> dict[str, Any]:
        with self.ledger.phase("step"):
            record: dict[str, Any] = {"epoch": self.epoch, **self._read_metrics()}
            if self.samples:
                self.samples.end_epoch(self.world)
        self.learner.metrics.reset()
        self._account.book_bytes()
        record |= self._account.book_faults()
        record["data_wait_seconds"] = self._this_epoch("data_wait")
        record["seconds"] = self._this_epoch("data_wait", "step")
        self.epoch, self._step_in_epoch = self.epoch + 1, 0
        if self.readers.val and (self.finished or self.epoch % self.eval_every == 0):
            record |= self._evaluate()
        self.epochs.append(record)
        self._tell("epoch", record)
        return record

    def finish(self) -> dict[str, Any]:
        """Write model.safetensors and result.json (and the tracked scores), close everything, return the result."""
        result = summarize(self.spec, self.epochs, self.ledger, self.world)
        if self.world.is_main:
            save_student(self.spec, self.learner.best_model, "model.safetensors")
            if self.samples and self.samples.tracker:
                save_tracked(self.spec, self.samples.ids, self.samples.tracker)
            write_json(self.spec.out / "result.json", result)
        self.close()
        return result

    def close(self) -> None:
        """Close readers and log files and let go of the folder."""
        self._open.close()

    def _plan(self) -> EpochPlan:
        observations = self.samples.observations if self.samples else None
        plan = self.course.plan(self.epoch, self._step_in_epoch, observations)
        self._epoch_steps = self.course.steps(plan.end_batch, self.global_step - self._step_in_epoch)
        return plan

    def _batches(self, plan: EpochPlan) -> Iterator[Batch]:
        source = self.readers.train.epoch(plan)
        batches = on_device(source, self.world.device)
        try:
            while True:
                with self.ledger.phase("data_wait"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch
        finally:
            source.close()  # type: ignore[attr-defined]

    def _learning_rate(self) -> float:
        recipe = self.spec.recipe
        position = self.course.position(self.epoch, self._step_in_epoch, self._epoch_steps, self.global_step)
        return learning_rate(recipe.schedule, recipe.optimizer.lr, position, self.total_steps)

    def _evaluate(self) -> dict[str, Any]:
        assert self.readers.val is not None
        with self.ledger.phase("eval"), self._threads.chosen():
            split = self.spec.store.split("val")
            found = evaluate(self.learner.best_model, self.readers.val, split, self.spec.recipe, self.world)
        before = max((record["val_top1"] for record in self.epochs if "val_top1" in record), default=-1.0)
        if self.spec.recipe.checkpoint.keep_best and found["top1"] > before and self.world.is_main:
            with self.ledger.phase("checkpoint"):
                save_student(self.spec, self.learner.best_model, "best.safetensors")
        return {"val_loss": found["loss"], "val_top1": found["top1"], "val_samples": found["samples"]}

    # ---- figures -----------------------------------------------------------------------------------------------

    def _read_metrics(self) -> dict[str, float]:
        self._require_finite()
        return self.learner.metrics.read(self.world)

    def _require_finite(self) -> None:
        """See require_finite; a collective call with one host sync."""
        require_finite(self.learner.watch, self.world, self.spec.out, self.epoch)

    def _this_epoch(self, *phases: str) -> float:
        """Seconds booked to `phases` since the epoch began."""
        return self.ledger.get(*phases) - sum(self._at_epoch_start.get(name, 0.0) for name in phases)

    def _report_interval(self) -> None:
        with self.ledger.phase("step"):
            values: dict[str, Any] = {"epoch": self.epoch, **self._read_metrics()}
        busy = self._this_epoch("data_wait", "step")
        values["lr"] = self._learning_rate()
        values["data_wait_share"] = self._this_epoch("data_wait") / busy
        values["images_per_second"] = values["samples"] / busy
        self._tell("train", values)

    def _tell(self, kind: str, values: dict[str, Any]) -> None:
        if self.log:
            self.log.write(kind, self.global_step, values)
        if self._progress:
            where = {"step": self.global_step, "total_steps": self.total_steps, "finished": self.finished}
            self._progress({"kind": kind, **where, **values})

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def _maybe_checkpoint(self) -> None:
        settings = self.spec.recipe.checkpoint
        if settings.every_steps and self.global_step % settings.every_steps == 0:
            self.checkpoint()
            return
        # processes must agree on a decision made by clock or signal; asking costs a sync, so ask seldom
        if self.world.size > 1 and self._step_in_epoch % self.spec.recipe.log_every:
            return
        overdue = time.monotonic() - self._last_checkpoint > 60 * settings.every_minutes
        if self.world.agree(overdue or self.requests.save):
            path = self.checkpoint()
            self.requests.save = False
            if self.world.agree(self.requests.stop):
                raise self.requests.stopped(f"; go on with `--resume auto` from {path}")

    def checkpoint(self) -> Path:
        """Write a checkpoint of this moment (the main process does; a collective call) and return its folder."""
        self._last_checkpoint = time.monotonic()
        self._require_finite()
        self._account.book_bytes()
        folder = self.spec.out / "checkpoints"
        with self.ledger.phase("checkpoint"):
            tensors = collect(self.world, self.learner, self.samples, self.randomness)
            if not self.world.is_main:
                return folder
            position = {
                "epoch": self.epoch,
                "step_in_epoch": self._step_in_epoch,
                "global_step": self.global_step,
                "epochs": self.epochs,
                "at_epoch_start": self._at_epoch_start,
                "ledger": self.ledger.to_dict(),
            }
            keep_last = self.spec.recipe.checkpoint.keep_last
            return save_checkpoint(folder, self.global_step, self.learner.parts, tensors, position, keep_last)

    def _restore(self, resume: str | None) -> None:
        """Go on from the newest readable checkpoint, if there is one."""
        if resume is None:
            return
        candidates = [Path(resume)] if resume != "auto" else checkpoints(self.spec.out / "checkpoints")[::-1]
        for path in candidates:
            try:
                tensors, position = load_checkpoint(path, self.learner.parts)
                spread(tensors, self.world, self.learner, self.samples, self.randomness)
            except ValueError as error:
                if path == candidates[-1]:
                    raise
                logger.warning(f"{error}; trying the one before")
                continue
            self.epoch, self._step_in_epoch = position["epoch"], position["step_in_epoch"]
            self.global_step, self.epochs = position["global_step"], position["epochs"]
            self._at_epoch_start = position["at_epoch_start"]
            self.ledger.restore(position["ledger"])
            logger.info(f"resumed from {path}: epoch {self.epoch}, step {self._step_in_epoch}")
            return
