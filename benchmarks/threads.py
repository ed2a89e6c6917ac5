"""What a busy neighbour costs a CPU run, by OpenMP threads: a fixed number, or what the trainer chooses.

    python benchmarks/threads.py [--model resnet10t] [--size 64] [--batch-size 64] [--seconds 8] [--rounds 5]

Trains a timm model on made-up images, in a process of its own per measurement: with a thread per core, with one thread,
with a thread per core that waits passively (OMP_WAIT_POLICY), and with `prunekd.training.threads`; first on the machine
as it is, then beside a process that keeps a core busy. The arms take turns. A row holds images per second: median, 20th
and 80th percentile over the rounds, the trainer's own measurements included. Appended to results/threads.csv.
"""

import argparse
import os
import subprocess
import sys
import time

import timm
import torch
from torch.nn import functional as F

from prunekd.training.threads import StepThreads
from recording import RESULTS, append_rows, circumstances, spread

ARMS = {
    "every core": {},
    "one": {"OMP_NUM_THREADS": "1"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "chosen": {},
}


def train(options: argparse.Namespace) -> float:
    """Images per second of `options.seconds` of training with the threads of the environment, or those chosen."""
    torch.manual_seed(0)
    model = timm.create_model(options.model, num_classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    shape = (options.batch_size, 3, options.size, options.size)
    images, labels = torch.randn(shape).to(memory_format=torch.channels_last), torch.arange(options.batch_size) % 10
    threads, steps, started = StepThreads(torch.device("cpu")), -2, time.perf_counter()
    while steps <= 0 or time.perf_counter() - started < options.seconds:
        if steps == 0:
            started = time.perf_counter()
        with threads.step() if options.arm == "chosen" else torch.enable_grad():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(images).float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        steps += 1
    return steps * options.batch_size / (time.perf_counter() - started)


def measure(arm: str, arguments: list[str]) -> float:
    """The same in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | ARMS[arm]
    command = [sys.executable, __file__, "--arm", arm, *arguments]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(train(options))
        return
    rows = []
    for neighbours in (0, 1):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
        try:
            found: dict[str, list[float]] = {arm: [] for arm in ARMS}
            for _ in range(options.rounds):
                for arm in ARMS:
                    found[arm].append(measure(arm, sys.argv[1:]))
        finally:
            for process in busy:
                process.kill()
        for arm, rates in found.items():
            figures = spread("images_per_second", rates, 1)
            print(f"{neighbours} busy, {arm}: {figures}")
            setting = {"model": options.model, "size": options.size, "batch_size": options.batch_size}
            rows.append({**setting, "busy_processes": neighbours, "threads": arm, "rounds": options.rounds, **figures})
    append_rows(RESULTS / "threads.csv", [row | circumstances() for row in rows])


if __name__ == "__main__":
    main()
