"""Do two processes train nearly twice as fast as one?

    python benchmarks/processes.py [STORE] [--processes 2] [--rounds 3] [--set KEY=VALUE ...]

`prunekd train` runs as one process with one thread (and one decoding thread) on one core, then under torchrun as
several such processes, one core each, with the same global batch, in turns. Images per second are the run's own, of the
last epoch of two, so that neither start-up nor the first epoch's growth of buffers counts. Rows are appended to
benchmarks/results/processes.csv. On a machine with GPUs each process takes one.
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

RECIPE = ["epochs=2", "batch_size=64", "train_view.size=96", "eval_view.size=96", "model.name=resnet18"]


def train(store: Path, out: Path, processes: int, overrides: list[str]) -> dict[str, float]:
    """Images per second of the last epoch and the share of the run's training time that waited for data."""
    settings = [word for pair in [*RECIPE, *overrides] for word in ("--set", pair)]
    command = ["prunekd", "train", str(store), "--recipe", "photos", *settings, "--workers", "1", "--out", str(out)]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    else:
        launch = ["-m"]
    cores = sorted(os.sched_getaffinity(0))[:processes]
    pinned = [] if torch.cuda.is_available() else ["taskset", "-c", ",".join(map(str, cores))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run([*pinned, sys.executable, *launch, *command], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    result = read_json(out / "result.json")
    images = result["samples_seen"] / result["epochs"]
    return {"images_per_second": images / result["epoch_seconds"][-1], "data_wait": result["data_wait_share"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], options.processes: []}
    waits: dict[int, list[float]] = {1: [], options.processes: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = options.store or made_up(folder).path
        for number in range(options.rounds):
            for processes in rates:
                found = train(store, folder / f"run{number}-{processes}", processes, options.overrides)
                rates[processes].append(found["images_per_second"])
                waits[processes].append(found["data_wait"])
    rows = [
        {"processes": processes, **spread("images_per_second", values, 1), **spread("data_wait", waits[processes])}
        for processes, values in rates.items()
    ]
    one = rows[0]["images_per_second_median"]
    for row in rows:
        row |= {"speed_up": round(row["images_per_second_median"] / one, 3), "rounds": options.rounds}
        print(
            f"{row['processes']} processes: {row['images_per_second_median']} images/s, {row['speed_up']:.2f} x one, "
            f"{row['data_wait_median']:.2%} waiting for data"
        )
    append_rows(RESULTS / "processes.csv", [row | circumstances() for row in rows])


if __name__ == "__main__":
    main()
