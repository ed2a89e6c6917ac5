"""Time a frozen teacher's forward pass: as one would write it down, and as ours runs it. Rows are appended to a CSV.

    python benchmarks/teacher.py [--models resnet50,...] [--size 96] [--batch-size 32] [--rounds 15]

`plain` is the model in float32 weights under bfloat16 autocast, channels-last, batch norms in place: the usual line in
a training script. `ours, eager` has its batch norms folded and its weights in bfloat16, in the memory format that
measures faster; `ours` is compiled, too. All start from the same uint8 images and end with logits. The contenders take
turns, so that another process on the machine slows all of them alike; the row holds the median and the 20th and 80th
percentile of the seconds of a pass, its ratio to `plain`, and how far the logits are from the plain float32 model's
(root mean square over a row, in stds of the row, the worst row). The weights are random and the images noise: a pass
costs what it costs whatever is in them.
"""

import argparse
import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from prunekd.common.pixels import to_input
from prunekd.distill import OnlineTeacher, TeacherSettings
from prunekd.distill.tuning import drift
from prunekd.models import ModelCard, create_model
from recording import RESULTS, append_rows, circumstances, spread

CLASSES = 1000


def plain_teacher(model: nn.Module, card: ModelCard, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The model under autocast, channels-last."""
    ready = copy.deepcopy(model).to(device, memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(images: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return ready(to_input(images, card.mean, card.std, torch.float32))

    return forward


def our_teacher(
    model: nn.Module, card: ModelCard, device: torch.device, images: Tensor, compile: str
) -> tuple[OnlineTeacher, float]:
    """Ours, prepared for these images, and the seconds that took."""
    started = time.perf_counter()
    teacher = OnlineTeacher(model, card, TeacherSettings(device=device, channels_last=None, compile=compile))
    teacher.prepare(images, 1)
    return teacher, time.perf_counter() - started


def measure(contenders: dict[str, Callable[[Tensor], Tensor]], images: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of a pass, by contender, taking turns after two turns to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 2):
        for name, forward in contenders.items():
            wait(images.device)
            started = time.perf_counter()
            forward(images)
            wait(images.device)
            if turn >= 2:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def rows_of(name: str, size: int, batch_size: int, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """One row per contender for one architecture."""
    model = create_model(name, CLASSES, seed=0).eval()
    card = ModelCard(model=name, num_classes=CLASSES, size=size)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch_size, size, size, 3), dtype=torch.uint8, generator=generator)
    images = pixels.to(device).permute(0, 3, 1, 2)
    eager, eager_setup = our_teacher(model, card, device, images, "off")
    ours, setup = our_teacher(model, card, device, images, "on")
    contenders: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": plain_teacher(model, card, device),
        "ours, eager": eager,
        "ours": ours,
    }
    exact = copy.deepcopy(model).to(device)(to_input(images, card.mean, card.std, torch.float32))
    seconds = measure(contenders, images, rounds)
    base = spread("seconds", seconds["plain"], 5)["seconds_median"]
    rows = []
    for contender, times in seconds.items():
        found = spread("seconds", times, 5)
        rows.append(
            {
                "model": name,
                "size": size,
                "batch_size": batch_size,
                "contender": contender,
                **found,
                "ratio_to_plain": round(found["seconds_median"] / base, 3),
                "images_per_second": round(batch_size / found["seconds_median"]),
                "drift_std": round(drift(exact, contenders[contender](images)), 5),
                "setup_seconds": round({"ours": setup, "ours, eager": eager_setup}.get(contender, 0.0), 1),
                "rounds": rounds,
                "threads": torch.get_num_threads(),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="resnet50")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = circumstances()
    for name in options.models.split(","):
        rows = rows_of(name, options.size, options.batch_size, options.rounds, device)
        append_rows(RESULTS / "teacher.csv", [row | where for row in rows])
        for row in rows:
            print(
                f"{name} {row['contender']:<12} {1e3 * row['seconds_median']:8.1f} ms "
                f"({1e3 * row['seconds_p20']:.1f} to {1e3 * row['seconds_p80']:.1f})  {row['ratio_to_plain']:.3f} x "
                f"plain  drift {row['drift_std']:.1e} std"
            )


if __name__ == "__main__":
    main()
