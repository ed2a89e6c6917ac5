"""Time the kernels against eager PyTorch, torch.compile and Liger-Kernel, forward + backward; append rows to a CSV.

    python benchmarks/kernels.py [--quick] [--device cpu|cuda] [--only kd_loss,normalize]

The contenders of a case take turns (round robin), so that another process on the machine slows all of them alike (its
load average stands in the row); the row holds the median and the 20th and 80th percentile. `floor_bytes` is what cannot
be avoided: for a loss, forward reads both logits and backward reads both and writes one, 5 values per class (10 bytes
in 16 bits). GB/s is floor_bytes over the median, whatever a contender really moves, and also given in percent of a
measured copy. `peak_mib` is memory on top of the inputs. Liger-Kernel (PyPI: liger-kernel) has no CPU kernels and joins
on GPUs only.
"""

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import prunekd_kernels
from prunekd_kernels.normalization.reference import normalize_reference
from recording import RESULTS, append_rows, circumstances, spread

LOSS_SHAPES = [(1024, 10), (1024, 100), (1024, 1000), (256, 21841), (128, 50000)]
QUICK_SHAPES = [(256, 10), (256, 1000)]
HEAD_DEPTH = 512
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
Contender = Callable[[], object]


class Case(NamedTuple):
    """One table: the same work done by several contenders."""

    operation: str
    rows: int
    classes: int
    dtype: torch.dtype
    note: str
    floor_bytes: int
    contenders: dict[str, Contender]


def plain_loss(student: Tensor, teacher: Tensor, labels: Tensor, *, alpha: float, temperature: float) -> Tensor:
    """The loss as one writes it in PyTorch, computed in float32."""
    student, soft_targets = student.float(), F.softmax(teacher.float() / temperature, dim=1)
    divergence = F.kl_div(F.log_softmax(student / temperature, dim=1), soft_targets, reduction="none").sum(1)
    hard = F.cross_entropy(student, labels, reduction="none")
    return (1 - alpha) * hard + alpha * temperature**2 * divergence


def loss_step(student: Tensor, loss: Callable[[Tensor], Tensor]) -> Contender:
    """Forward and backward of a mean loss on a leaf."""

    def step() -> None:
        student.grad = None
        loss(student).mean().backward()

    return step


def loss_cases(shapes: list[tuple[int, int]], device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """kd_loss at T = 1 (ImageNet's convention) and T = 4 (CIFAR's)."""
    for rows, classes in shapes:
        for temperature in (1.0, 4.0):
            torch._dynamo.reset()
            student, teacher = torch.randn(2, rows, classes, device=device).to(dtype)
            student = student.detach().requires_grad_()
            labels = torch.randint(0, classes, (rows,), device=device)
            arguments = {"alpha": 0.5, "temperature": temperature}
            compiled = torch.compile(plain_loss, dynamic=False)
            losses = {
                "eager": lambda z, t=teacher, y=labels, a=arguments: plain_loss(z, t, y, **a),
                "torch.compile": lambda z, t=teacher, y=labels, a=arguments, f=compiled: f(z, t, y, **a),
                "prunekd": lambda z, t=teacher, y=labels, a=arguments: prunekd_kernels.kd_loss(z, t, y, **a),
            }
            if device.type == "cuda":
                losses["liger"] = liger_loss(teacher, labels, temperature)
            size = 5 * rows * classes * student.element_size()
            steps = {name: loss_step(student, loss) for name, loss in losses.items()}
            yield Case("kd_loss", rows, classes, dtype, f"T={temperature:g}", size, steps)


def liger_loss(teacher: Tensor, labels: Tensor, temperature: float) -> Callable[[Tensor], Tensor]:
    """Liger's nearest: its cross entropy plus its KL divergence on log-probabilities (both reduce to a mean)."""
    from liger_kernel.transformers import LigerCrossEntropyLoss, LigerKLDIVLoss

    hard, soft = LigerCrossEntropyLoss(), LigerKLDIVLoss(reduction="batchmean")

    def loss(student: Tensor) -> Tensor:
        divergence = soft(F.log_softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1))
        # Liger's cross entropy writes its gradient over the logits it is given
        return 0.5 * hard(student.clone(), labels) + 0.5 * temperature**2 * divergence

    return loss


def head_cases(shapes: list[tuple[int, int]], device: torch.device, dtype: torch.dtype) -> Iterator[Case]:
    """teacher_head_kd against the head's matrix product followed by kd_loss."""
    for rows, classes in shapes:
        student = torch.randn(rows, classes, device=device).to(dtype).requires_grad_()
        features = torch.randn(rows, HEAD_DEPTH, device=device).to(dtype)
        weight, bias = (
            (torch.randn(classes, HEAD_DEPTH, device=device) / 16).to(dtype),
            torch.zeros(classes, dtype=dtype),
        )
        bias, labels = bias.to(device), torch.randint(0, classes, (rows,), device=device)

        def separate(
            z: Tensor, h: Tensor = features, w: Tensor = weight, b: Tensor = bias, y: Tensor = labels
        ) -> Tensor:
            with torch.no_grad():
                teacher = F.linear(h, w, b)
            return prunekd_kernels.kd_loss(z, teacher, y, alpha=0.5, temperature=1.0)

        def fused(z: Tensor, h: Tensor = features, w: Tensor = weight, b: Tensor = bias, y: Tensor = labels) -> Tensor:
            return prunekd_kernels.teacher_head_kd(z, h, w, b, y, alpha=0.5, temperature=1.0)

        steps = {"head + kd_loss": loss_step(student, separate), "teacher_head_kd": loss_step(student, fused)}
        size = student.element_size() * (3 * rows * classes + 2 * classes * HEAD_DEPTH)
        yield Case("teacher_head_kd", rows, classes, dtype, f"D={HEAD_DEPTH}", size, steps)


def normalize_cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """A batch of 224 x 224 images, every second one mirrored."""
    batch = 16 if quick else 128
    images = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8, device=device)
    flip = torch.arange(batch, device=device) % 2 == 0
    for dtype in (torch.float32, torch.bfloat16):
        torch._dynamo.reset()
        compiled = torch.compile(normalize_reference, dynamic=False)
        contenders: dict[str, Contender] = {
            "eager": lambda d=dtype: normalize_reference(images, MEAN, STD, flip, d),
            "torch.compile": lambda d=dtype, f=compiled: f(images, MEAN, STD, flip, d),
            "prunekd": lambda d=dtype: prunekd_kernels.normalize(images, MEAN, STD, flip, d),
        }
        yield Case("normalize", batch, 0, dtype, "224x224, flip", images.numel() * (1 + dtype.itemsize), contenders)


def step_cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """A whole training step, ResNet-50 teacher and ResNet-18 student, with either loss, and the losses alone."""
    from torchvision.models import resnet18, resnet50

    rows, side = (8, 64) if quick else (32, 128) if device.type == "cpu" else (256, 224)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    student, teacher = resnet18().to(device), resnet50().to(device).eval()
    images, labels = torch.randn(rows, 3, side, side, device=device), torch.randint(0, 1000, (rows,), device=device)
    logits, fixed = torch.randn(2, rows, 1000, device=device).to(dtype)
    leaf = logits.detach().requires_grad_()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)

    def whole(loss: Callable[..., Tensor]) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with torch.no_grad():
                target = teacher(images)
            output = student(images)
        optimizer.zero_grad()
        loss(output, target, labels, alpha=0.5, temperature=1.0).mean().backward()
        optimizer.step()

    contenders: dict[str, Contender] = {}
    for name, loss in (("eager", plain_loss), ("prunekd", prunekd_kernels.kd_loss)):
        contenders[f"step, {name} loss"] = lambda f=loss: whole(f)
        contenders[f"{name} loss alone"] = loss_step(
            leaf, lambda z, f=loss: f(z, fixed, labels, alpha=0.5, temperature=1.0)
        )
    yield Case("training_step", rows, 1000, dtype, f"ResNet-50 to 18, {side} px", 0, contenders)


def time_case(case: Case, device: torch.device, repeats: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each contender, taking turns until `repeats` rounds or `seconds` are over (5 rounds at least)."""
    for contender in case.contenders.values():
        for _ in range(3):  # compile, allocate, warm up
            contender()
    times: dict[str, list[float]] = {name: [] for name in case.contenders}
    end = time.perf_counter() + seconds
    for round_number in range(repeats):
        if round_number >= 5 and time.perf_counter() > end:
            break
        for name, contender in case.contenders.items():
            times[name].append(time_once(contender, device))
    return times


def time_once(contender: Contender, device: torch.device) -> float:
    """Milliseconds of one call, on the GPU's own clock where there is one."""
    if device.type != "cuda":
        start = time.perf_counter()
        contender()
        return (time.perf_counter() - start) * 1e3
    begin, done = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    contender()
    done.record()
    done.synchronize()
    return begin.elapsed_time(done)


def peak_memory(contender: Contender, device: torch.device) -> float | None:
    """MiB that a call needs at its peak beyond what is allocated before it; on Linux CPUs from the resident set."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        contender()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # sets the high-water mark back to the present size
        before = _status_kib(status, "VmRSS")
        contender()
        return (_status_kib(status, "VmHWM") - before) / 1024
    except OSError:
        return None


def _status_kib(status: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key))


def copy_bandwidth(device: torch.device) -> float:
    """GB/s, read plus written, of a plain copy too large for any cache."""
    source = torch.empty((1 << 30) if device.type == "cuda" else (1 << 28), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    best = min(time_once(lambda: target.copy_(source), device) for _ in range(10))
    return 2 * source.numel() / best / 1e6


def run_case(
    case: Case, device: torch.device, options: argparse.Namespace, common: dict, bandwidth: float
) -> list[dict]:
    """Time a case, print its table, and return one row per contender."""
    times = time_case(case, device, options.repeats, options.seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = next((name for name in ("prunekd", "teacher_head_kd") if name in medians), None)
    print(f"{case.operation}  B={case.rows} C={case.classes} {str(case.dtype)[6:]} {case.note}")
    rows = []
    for name, values in times.items():
        speed = case.floor_bytes / medians[name] / 1e6
        peak = peak_memory(case.contenders[name], device)
        ratio = f"{medians[name] / medians[ours]:5.2f} x ours" if ours and name != ours else ""
        print(f"  {name:20s} {medians[name]:9.3f} ms  {speed:7.1f} GB/s  {ratio}")
        rows.append(common | {
            "operation": case.operation, "contender": name, "rows": case.rows, "classes": case.classes,
            "dtype": str(case.dtype)[6:], "note": case.note, **spread("ms", values), "repeats": len(values),
            "floor_bytes": case.floor_bytes, "gb_per_s": round(speed, 2),
            "load_average": round(os.getloadavg()[0], 2),
            "percent_of_copy": round(100 * speed / bandwidth, 1), "peak_mib": "" if peak is None else round(peak, 1),
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="small shapes, to see that it runs; not appended to the CSV"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", default="kd_loss,teacher_head_kd,normalize,training_step", help="comma-separated")
    parser.add_argument(
        "--dtype", default="", help="float32, bfloat16 or float16; default float32 on CPU, else bfloat16"
    )
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=20.0, help="at most this long for one case")
    parser.add_argument("--out", type=Path, default=RESULTS / "kernels.csv")
    options = parser.parse_args()
    device = torch.device(options.device)
    dtype = getattr(torch, options.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    shapes = QUICK_SHAPES if options.quick else LOSS_SHAPES
    if options.quick:
        options.repeats, options.seconds = 5, 2.0
    bandwidth = copy_bandwidth(device)
    common = circumstances() | {
        "device": str(device), "threads": torch.get_num_threads(), "copy_gb_per_s": round(bandwidth, 1),
    }  # fmt: skip
    print(f"{common['hardware']}; {common['versions']}; copy {bandwidth:.1f} GB/s")
    cases = {
        "kd_loss": lambda: loss_cases(shapes, device, dtype),
        "teacher_head_kd": lambda: head_cases(shapes, device, dtype),
        "normalize": lambda: normalize_cases(device, options.quick),
        "training_step": lambda: step_cases(device, options.quick),
    }
    for operation in options.only.split(","):
        for case in cases[operation]():
            rows = run_case(case, device, options, common, bandwidth)
            if not options.quick:
                append_rows(options.out, rows)


if __name__ == "__main__":
    main()
