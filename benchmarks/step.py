"""Time whole training steps: labels alone, with an eager teacher, with ours, with cached labels, and timm's own.

    python benchmarks/step.py [--pairs resnet18:resnet10t,...] [--size 96] [--batch-size 64] [--rounds 15]

All contenders train the same student in bfloat16, channels-last, on the same prepared batches, and take turns step by
step, so that another process on the machine slows all of them alike; the row holds the median and the 20th and 80th
percentile of the seconds of a step, and how much of it each part took. `eager teacher` is the teacher under autocast as
it is; ours is folded, in bfloat16 and compiled; `not compiled` shows what that gives without the last. `timm` is timm's
LogitDistillationTask (what its train.py --kd-model-name runs) with torch's SGD; nobody's student is compiled.
`tracked` gathers every training-dynamics score. Ratios are medians of the ratios of steps taken in the same turn.
Contenders start from the same weights; the first step's losses are compared. The images are noise: a step costs what it
costs whatever is in them. Data wait is not part of a step; benchmarks/epoch_time.py measures epochs.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from timm.task import LogitDistillationTask
from torch import Tensor, nn

from prunekd.common.distributed import World
from prunekd.common.pixels import to_input
from prunekd.distill import OnlineTeacher, SoftLabels, TeacherSettings
from prunekd.input import Batch
from prunekd.models import ModelCard, create_model
from prunekd.pruning.training_dynamics import DYNAMICS
from prunekd.store import Store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from prunekd.training import RunSpec, load_recipe
from prunekd.training.learner import Learner
from prunekd.training.samples import SampleState
from recording import RESULTS, append_rows, circumstances, spread

CPU_PAIRS = "resnet18:resnet10t,resnet50:resnet18"
GPU_PAIRS = "resnet50:resnet18,resnet50:resnet50,resnet34:resnet18,resnet18:resnet50"
CLASSES, TOP_K, TEMPERATURE, ALPHA, RATE = 1000, 20, 2.0, 0.5, 0.05
PARTS = ("teacher", "forward", "loss", "backward", "optimizer")


class EagerTeacher(OnlineTeacher):
    """A teacher as one would write it down: neither folded nor cast, under autocast."""

    def __init__(self, model: nn.Module, card: ModelCard, device: torch.device) -> None:
        super().__init__(model, card, TeacherSettings(dtype=torch.float32, fold=False, device=device))
        self._device = device

    @torch.no_grad()
    def from_normalized(self, images: Tensor) -> Tensor:
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            return super().from_normalized(images)


class Cached:
    """Top-K soft labels as a cache would deliver them."""

    def __init__(self, samples: int) -> None:
        rng = torch.Generator().manual_seed(0)
        self._ids = torch.rand(samples, CLASSES, generator=rng).topk(TOP_K, dim=1).indices.to(torch.int16)
        self._logits = torch.randn(samples, TOP_K, generator=rng).half()
        self._sums, self._std = torch.full((samples,), 8.0), torch.ones(samples)

    def lookup(self, ids: Tensor, view_index: int) -> SoftLabels:
        return SoftLabels(
            logits=self._logits[ids],
            ids=self._ids[ids],
            std=self._std[ids],
            logsumexp=self._sums[ids],
            temperature=TEMPERATURE,
        )

    def view_index_for(self, epoch: int) -> int:
        return epoch


class Stopwatch:
    """Seconds in parts of a step; on a GPU each part waits for the device, which only the breakdown's steps do."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.on = False
        self.seconds: dict[str, list[float]] = {name: [] for name in PARTS}

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self.on:
                return call(*args, **kwargs)
            wait(self._device)
            started = time.perf_counter()
            result = call(*args, **kwargs)
            wait(self._device)
            self.seconds[name].append(time.perf_counter() - started)
            return result

        return timed


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Ours:
    """A learner of ours, its step and the parts of it."""

    def __init__(self, spec: RunSpec, world: World, samples: SampleState | None = None) -> None:
        self.learner = Learner(spec, world, samples)
        self.watch = Stopwatch(world.device)
        self.steps = 0
        learner, wrap = self.learner, self.watch.wrap
        learner._targets = wrap("teacher", learner._targets)  # type: ignore[method-assign]
        learner._forward = wrap("forward", learner._forward)  # type: ignore[assignment]
        learner.objective = wrap_objective(learner.objective, wrap)
        scale = learner.parts.scaler.scale

        def scaled(loss: Tensor) -> Any:
            return SimpleNamespace(backward=wrap("backward", scale(loss).backward))

        learner.parts.scaler.scale = scaled  # type: ignore[assignment, method-assign]
        learner.parts.optimizer.step = wrap("optimizer", learner.parts.optimizer.step)  # type: ignore[method-assign]

    def __call__(self, batch: Batch) -> None:
        self.learner.step(batch, self.steps, RATE, 0)
        self.steps += 1

    def first_loss(self) -> float:
        loss = self.learner.watch._steps[0][2].mean().item()
        return float(loss)


def wrap_objective(objective: Any, wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> Any:
    class Timed:
        needs_teacher = objective.needs_teacher
        __call__ = staticmethod(wrap("loss", objective))

    return Timed()


class Timm:
    """timm's distillation step on float32 inputs, as its train.py takes it on one device."""

    def __init__(self, student: nn.Module, teacher: nn.Module, spec: RunSpec, device: torch.device) -> None:
        self._student = copy.deepcopy(student).to(device).to(memory_format=torch.channels_last).train()
        module = copy.deepcopy(teacher).to(device).to(memory_format=torch.channels_last).requires_grad_(False)
        self._task = LogitDistillationTask(
            self._student, module, nn.CrossEntropyLoss(), task_loss_weight=1 - ALPHA, temperature=TEMPERATURE,
            device=device, verbose=False,
        )  # fmt: skip
        self._optimizer = torch.optim.SGD(self._student.parameters(), lr=RATE, momentum=0.9, nesterov=True)
        self._recipe, self._device = spec.recipe, device
        self.watch = Stopwatch(device)
        self.losses: list[Tensor] = []

    def __call__(self, batch: Batch) -> None:
        inputs = to_input(batch.images, self._recipe.mean, self._recipe.std, torch.float32)
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            result = self._task(inputs, batch.labels)
        result["loss"].backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.losses.append(result["loss"].detach())

    def first_loss(self) -> float:
        return self.losses[0].item()


def tiny_store(folder: Path) -> Store:
    """A store with the right number of classes; its images are never read."""
    labels = np.arange(CLASSES)
    images = np.zeros((CLASSES, 4, 4, 3), np.uint8)
    np.savez(folder / "tiny.npz", train_images=images, train_labels=labels)
    return convert(open_source(folder / "tiny.npz"), folder / "store", ConvertSettings())


def batches(count: int, batch_size: int, size: int, device: torch.device) -> list[Batch]:
    rng = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        images = torch.randint(0, 256, (batch_size, size, size, 3), dtype=torch.uint8, generator=rng).to(device)
        ids = torch.randint(0, CLASSES, (batch_size,), generator=rng)
        found.append(Batch(images.permute(0, 3, 1, 2), ids.to(device), ids, None))
    return found


def contenders(store: Store, out: Path, teacher: str, student: str, options: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(options.device)
    world = World(0, 1, device)
    recipe = load_recipe("photos", [
        f"model.name={student}", f"train_view.size={options.size}", f"eval_view.size={options.size}",
        f"batch_size={options.batch_size}", f"distill.alpha={ALPHA}", f"distill.temperature={TEMPERATURE}",
        "label_smoothing=0", "optimizer.name=sgd", f"optimizer.lr={RATE}", "optimizer.weight_decay=0",
    ])  # fmt: skip
    model = create_model(teacher, CLASSES, seed=1).eval()
    card = ModelCard(model=teacher, num_classes=CLASSES, mean=recipe.mean, std=recipe.std, size=options.size)

    def spec(name: str, **extra: Any) -> RunSpec:
        return RunSpec(store=store, recipe=recipe, out=out / name, **extra)

    def ours(compiled: str) -> OnlineTeacher:
        settings = TeacherSettings(dtype=torch.bfloat16, device=device, channels_last=None, compile=compiled)
        made = OnlineTeacher(copy.deepcopy(model), card, settings)
        made.prepare(batches(1, options.batch_size, options.size, device)[0].images, 10**6)
        return made

    plain = Ours(spec("plain"), world)
    tracked = SampleState(np.arange(CLASSES), list(DYNAMICS), recipe.epochs, None, device)
    return {
        "plain": plain,
        "plain, tracked": Ours(spec("tracked"), world, tracked),
        "kd, eager teacher": Ours(spec("eager", teacher=EagerTeacher(copy.deepcopy(model), card, device)), world),
        "kd, ours, not compiled": Ours(spec("ours_eager", teacher=ours("off")), world),
        "kd, our teacher": Ours(spec("ours", teacher=ours("on")), world),
        "kd, cached labels": Ours(spec("cached", cached=Cached(CLASSES)), world),
        "kd, timm": Timm(create_model(student, CLASSES, seed=recipe.seed), model, spec("timm"), device),
    }


def measure(found: dict[str, Any], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every step, by contender; two rounds warm up, and every fourth round is for the breakdown."""
    device = torch.device(options.device)
    prepared = batches(4, options.batch_size, options.size, device)
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for number in range(options.rounds + 2):
        for name, step in found.items():
            step.watch.on = number >= 2 and number % 4 == 0
            wait(device)
            started = time.perf_counter()
            step(prepared[number % 4])
            wait(device)
            if number >= 2:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def rows_of(
    teacher: str, student: str, found: dict[str, Any], seconds: dict[str, list[float]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Print a pair's table and return its rows."""
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    rows = []
    print(f"{teacher} -> {student}, {options.size} px, batch {options.batch_size}")
    for name, values in seconds.items():
        parts = {part: found[name].watch.seconds[part] for part in PARTS}
        shares = {f"{part}_ms": round(1e3 * float(np.median(p)), 3) if p else "" for part, p in parts.items()}
        print(
            f"  {name:18s} {1e3 * medians[name]:8.1f} ms  {options.batch_size / medians[name]:8.1f} images/s  "
            f"{ratio(values, seconds['plain']):6.3f} x plain  first loss {found[name].first_loss():.4f}  {shares}"
        )
        rows.append(
            circumstances()
            | {"device": options.device, "teacher": teacher, "student": student, "size": options.size}
            | {"batch_size": options.batch_size, "contender": name, "steps": len(values)}
            | spread("step_ms", [1e3 * value for value in values], 2)
            | {"images_per_second": round(options.batch_size / medians[name], 1)}
            | {"of_plain": round(ratio(values, seconds["plain"]), 3)}
            | {"of_timm": round(ratio(values, seconds["kd, timm"]), 3)}
            | {"first_loss": round(found[name].first_loss(), 5), **shares}
        )
    return rows


def ratio(values: list[float], others: list[float]) -> float:
    """Median of the ratios of seconds measured in the same turn."""
    return float(np.median(np.divide(values, others)))


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--pairs", default=GPU_PAIRS if on_gpu else CPU_PAIRS, help="TEACHER:STUDENT,...")
    parser.add_argument("--size", type=int, default=224 if on_gpu else 96)
    parser.add_argument("--batch-size", type=int, default=256 if on_gpu else 64)
    parser.add_argument("--rounds", type=int, default=40 if on_gpu else 15)
    parser.add_argument("--out", type=Path, default=RESULTS / "step.csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = tiny_store(Path(folder))
        for pair in options.pairs.split(","):
            teacher, student = pair.split(":")
            found = contenders(store, Path(folder) / pair, teacher, student, options)
            append_rows(options.out, rows_of(teacher, student, found, measure(found, options), options))


if __name__ == "__main__":
    main()
