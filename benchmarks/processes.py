"""Do two processes train nearly twice as fast as one?

    python benchmarks/processes.py [STORE] [--processes 2] [--rounds 3] [--set KEY=VALUE ...]

In turns: `prunekd train` as one process with one thread and one decoding thread on one core; under torchrun as several
such processes, one core and the same share of the batch each; and as several runs at once that have nothing to do with
each other, which is what the machine allows. Images per second are the run's own, of the last epoch of two, so that
neither start-up nor the first epoch's growth of buffers counts. Rows are appended to benchmarks/results/processes.csv.
On a machine with GPUs each process takes one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from epoch_time import made_up
from prunekd.common.files import read_json
from recording import RESULTS, append_rows, circumstances, spread

BATCH = 64  # of each process
RECIPE = ["epochs=2", "train_view.size=96", "eval_view.size=96", "model.name=resnet18"]


def start(store: Path, out: Path, processes: int, cores: list[int], overrides: list[str]) -> subprocess.Popen[str]:
    settings = [word for pair in [*RECIPE, f"batch_size={BATCH * processes}", *overrides] for word in ("--set", pair)]
    command = ["prunekd", "train", str(store), "--recipe", "photos", *settings, "--workers", "1", "--out", str(out)]
    launch = ["-m"]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    pinned = [] if torch.cuda.is_available() else ["taskset", "-c", ",".join(map(str, cores))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    words = [*pinned, sys.executable, *launch, *command]
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(run: subprocess.Popen[str], out: Path) -> tuple[float, float]:
    """Images per second of the last epoch, and the share of the run's training time that waited for data."""
    _, errors = run.communicate()
    if run.returncode:
        raise RuntimeError(f"{run.args} failed: {errors[-2000:]}")
    result = read_json(out / "result.json")
    return result["samples_seen"] / result["epochs"] / result["epoch_seconds"][-1], result["data_wait_share"]


def measure(store: Path, folder: Path, contender: str, processes: int, overrides: list[str]) -> tuple[float, float]:
    cores = sorted(os.sched_getaffinity(0))[:processes]
    if contender != "apart":
        return finish(start(store, folder, processes, cores, overrides), folder)
    outs = [folder / str(core) for core in cores]
    runs = [start(store, out, 1, [core], overrides) for core, out in zip(cores, outs, strict=True)]
    found = [finish(run, out) for run, out in zip(runs, outs, strict=True)]
    return sum(rate for rate, _ in found), max(wait for _, wait in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    contenders = {"one": 1, "together": options.processes, "apart": options.processes}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    waits: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = options.store or made_up(folder).path
        for number in range(options.rounds):
            for contender, processes in contenders.items():
                out = folder / f"{contender}{number}"
                rate, wait = measure(store, out, contender, processes, options.overrides)
                rates[contender].append(rate)
                waits[contender].append(wait)
    rows = [
        {"contender": contender, "processes": contenders[contender], "settings": " ".join(options.overrides)}
        | spread("images_per_second", values, 1)
        | spread("data_wait", waits[contender])
        for contender, values in rates.items()
    ]
    one = rows[0]["images_per_second_median"]
    for row in rows:
        row |= {"speed_up": round(row["images_per_second_median"] / one, 3), "rounds": options.rounds}
        print(
            f"{row['contender']:9s} {row['images_per_second_median']} images/s, {row['speed_up']:.2f} x one, "
            f"{row['data_wait_median']:.2%} waiting for data"
        )
    append_rows(RESULTS / "processes.csv", [row | circumstances() for row in rows])


if __name__ == "__main__":
    main()
