"""How long does it take to rank ImageNet, and in how much memory? Rows go to benchmarks/results/selection.csv.

    python benchmarks/selection.py [--policies random,medium,...] [--repeats 5] [--samples 1281167] [--classes 1000]

Every policy ranks the samples by made-up scores (gamma distributed, as losses are), with classes of uneven size, in a
process of its own on one core, as do the dynamic policies one epoch. Seconds are those of the ranking alone: the median
and the 20th and 80th percentile of the repeats. Memory is the resident set's peak, and by how much it exceeds what was
resident once everything was imported and before the scores were made: arguments, result and all in between.
Policies that look at features rank fewer classes (--feature-classes) with features of 512 values in a memory map; the
seconds for all classes, which go one by one, are in proportion.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from prunekd.pruning.epoch_policies import DYNAMIC_POLICIES, Observations, create_dynamic
from prunekd.pruning.policies import BALANCES, POLICIES
from recording import RESULTS, append_rows, circumstances, spread

WIDTH = 512  # of the features
KEEP = 0.5


def uneven_labels(samples: int, classes: int) -> np.ndarray:
    """Labels int64 (samples,) in random order, classes from 0.6 to 1.03 times as large as the largest would be."""
    share = np.linspace(0.6, 1.03, classes)
    edges = np.round(np.cumsum(share) / share.sum() * samples).astype(np.int64)
    labels = np.searchsorted(edges, np.arange(samples), side="right")
    return np.random.default_rng(0).permutation(labels)


def static_call(name: str, balance: str, samples: int, classes: int, folder: Path) -> Callable[[], Any]:
    """A call that ranks everything once."""
    policy = POLICIES[name]
    rng = np.random.default_rng(1)
    labels, ids = uneven_labels(samples, classes), np.arange(samples)
    scores = rng.gamma(0.5, 1.0, samples).astype(np.float32) if policy.needs_score else None
    extra: dict[str, Any] = {}
    if "features" in policy.needs:
        extra["features"] = np.load(write_features(folder, samples), mmap_mode="r")
        extra["progress"] = lambda done, total: None
    if "keep" in policy.needs:
        extra |= {"keep": KEEP, "p_mean": rng.random(samples, dtype=np.float32)}
    return lambda: policy.rank(scores, labels, ids, 0, balance=balance, **policy.parameters, **extra)


def write_features(folder: Path, samples: int) -> Path:
    """Features float16 (samples, WIDTH), as a pass of a teacher leaves them."""
    path = folder / "features.npy"
    rng = np.random.default_rng(2)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(samples, WIDTH))
    for start in range(0, samples, 4096):
        rows[start : start + 4096] = rng.standard_normal(rows[start : start + 4096].shape, dtype=np.float32)
    rows.flush()
    return path


def dynamic_call(name: str, samples: int) -> Callable[[], Any]:
    """A call that chooses the samples of one epoch."""
    policy = create_dynamic(name, np.arange(samples), epochs=100, seed=0)
    losses = np.random.default_rng(1).gamma(0.5, 1.0, samples).astype(np.float32)
    observed = Observations(losses, losses, losses)
    return lambda: policy.subset_for(3, observed)


def measure(kind: str, name: str, balance: str, samples: int, classes: int, repeats: int) -> dict[str, Any]:
    """In this process: seconds of every repeat, and memory in MiB."""
    before = resident("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        call = (
            dynamic_call(name, samples)
            if kind == "dynamic"
            else static_call(name, balance, samples, classes, Path(folder))
        )
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, from what is resident now
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
        peak = resident("VmHWM")
    return {"seconds": seconds, "added": peak - before, "peak": peak}


def resident(field: str) -> float:
    """A figure of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def in_child(arguments: list[str]) -> dict[str, Any]:
    """What `measure` finds in a fresh process on one core."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    core = min(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(core), sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, env=os.environ | threads, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cases(names: list[str]) -> list[tuple[str, str, str]]:
    """(kind, policy, balance) of everything to measure: each policy's own balance, and `equal` where that is none."""
    found = []
    for name in names:
        if name in DYNAMIC_POLICIES:
            found.append(("dynamic", name, ""))
            continue
        policy = POLICIES[name]
        balances = [policy.default_balance]
        if policy.default_balance == "none" and name != "ccs":
            balances.append("equal")
        assert set(balances) <= set(BALANCES)
        found += [("features" if "features" in policy.needs else "scores", name, balance) for balance in balances]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", default=",".join([*POLICIES, *DYNAMIC_POLICIES]))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--feature-classes", type=int, default=10)
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, name, balance, *numbers = options.child
        print(json.dumps(measure(kind, name, balance, *map(int, numbers))))
        return
    where = circumstances()
    for kind, name, balance in cases(options.policies.split(",")):
        part = options.feature_classes / options.classes if kind == "features" else 1.0
        samples, classes = round(options.samples * part), round(options.classes * part)
        found = in_child([kind, name, balance, str(samples), str(classes), str(options.repeats)])
        row = {
            "kind": kind,
            "policy": name,
            "balance": balance,
            "samples": samples,
            "classes": classes,
            **spread("seconds", found["seconds"]),
            "seconds_all_classes": round(statistics.median(found["seconds"]) / part, 3),
            "peak_added_mib": round(found["added"]),
            "peak_rss_mib": round(found["peak"]),
            "repeats": options.repeats,
        }
        append_rows(RESULTS / "selection.csv", [row | where])
        print(
            f"{name:<10} {balance:<6} {samples:>9,} samples  {row['seconds_median']:7.3f} s "
            f"({row['seconds_p20']:.3f} to {row['seconds_p80']:.3f})  all: {row['seconds_all_classes']:.2f} s  "
            f"+{row['peak_added_mib']} MiB, peak {row['peak_rss_mib']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
