"""Made-up sweeps as `prunekd bench` leaves them, with known numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunekd.sweep.arms import ARMS

TOTAL = 10_000
EPOCHS = 20
KEEPS = (1.0, 0.7, 0.5, 0.3, 0.1)
FULL_SECONDS = {"none": 60.0, "online": 100.0, "cached": 64.0}  # of an epoch on all data
COSTS = {"score": 40.0, "select": 0.4, "labels": 320.0, "compact": 12.0}


def result(arm: str, policy: str, keep: float, seed: int, *, top1: float, timed: bool = False) -> dict[str, Any]:
    """A result.json; an epoch takes FULL_SECONDS * r + 1 s, 1 % more with each seed."""
    settings = ARMS.get(arm, ARMS["kd"])
    kept = TOTAL if settings.fewer_epochs or settings.dynamic else round(keep * TOTAL)
    epochs = round(EPOCHS * keep) if settings.fewer_epochs else EPOCHS
    seen = (round(keep * TOTAL) if settings.dynamic else kept) * epochs
    epoch = (FULL_SECONDS[settings.teacher] * seen / epochs / TOTAL + 1) * (1 + 0.01 * seed)
    train = epoch * epochs
    values = {
        "name": f"{arm}-{policy}-keep{keep:g}-seed{seed}",
        "arm": arm,
        "policy": policy,
        "keep": keep,
        "seed": seed,
        "epochs": epochs,
        "samples_kept": kept,
        "samples_total": TOTAL,
        "samples_seen": seen,
        "top1": None if timed else top1,
        "best_top1": None if timed else top1 + 0.005,
        "train_seconds": train,
        "epoch_seconds": [epoch] * (3 if timed else epochs),
        "eval_seconds": 9.0,
        "images_per_second": seen / train,
        "data_wait_share": 0.03,
        "bytes_read": 1010 * seen,
        "payload_bytes": 1000 * seen,
        "ledger": {
            "seconds": {"setup": 4.0, "data_wait": 0.03 * train, "step": 0.97 * train, "eval": 9.0, "checkpoint": 2.0},
            "counters": {"bytes_read": 1010 * seen},
        },
    }
    extra = {"batches": 8, "epochs": 3, "samples_timed": 8 * 64 * 3, "samples_total": seen}
    return values | ({"extrapolated": extra} if timed else {})


def accuracy(arm: str, policy: str, keep: float, seed: int) -> float:
    """Falls as less is kept, less so with a teacher; medium is better than random at half, worse at a tenth."""
    lost = {"plain": 0.09, "equal_time": 0.07}.get(arm, 0.05) * -np.log2(keep) * 0.6
    chosen = policy if policy != "all" else arm
    bonus = {"medium": 0.012 * (1 - 0.25 / keep), "infobatch": 0.02, "rs2": 0.015}.get(chosen, 0.0) * (keep < 1)
    noise = np.random.default_rng([seed, len(arm), len(policy), round(1000 * keep)]).normal(0, 0.002)
    return float(0.71 + 0.02 * (arm != "plain") - lost + bonus + noise)


def write_big_sweep(folder: Path, seeds: int = 2, timed: bool = False, bonus: float = 0.0) -> Path:
    """A sweep of 32 runs a seed over eight arms, two policies and five ratios."""
    cells = [(arm, "all", 1.0) for arm in ("plain", "kd", "kd_cached")]
    for keep in KEEPS[1:]:
        cells += [(arm, policy, keep) for arm in ("plain", "kd") for policy in ("random", "medium")]
        cells += [("kd_cached", "random", keep), ("rs2", "all", keep), ("equal_time", "all", keep)]
    cells += [("infobatch", "all", 0.5)]
    runs = [
        result(arm, policy, keep, seed, top1=accuracy(arm, policy, keep, seed) + bonus, timed=timed)
        for seed in range(seeds)
        for arm, policy, keep in cells
    ]
    return write_sweep_of(folder, runs, {name: {"seconds": seconds} for name, seconds in COSTS.items()})


def write_sweep_of(folder: Path, runs: list[dict[str, Any]], costs: Mapping[str, Any]) -> Path:
    """A sweep's folder with these results."""
    for run in runs:
        (folder / "runs" / run["name"]).mkdir(parents=True)
        (folder / "runs" / run["name"] / "result.json").write_text(json.dumps(run))
    arms = list(dict.fromkeys(run["arm"] for run in runs))
    facts = {
        "format": "prunekd-sweep",
        "version": 1,
        "store": {"path": "store", "fingerprint": "f" * 64, "train": TOTAL, "val": 1_000_000, "classes": 100},
        "recipe": {"epochs": EPOCHS, "model": {"name": "<b>&net"}, "text": "</script><!-- x"},
        "arms": arms,
        "policies": sorted({run["policy"] for run in runs}),
        "keeps": sorted({run["keep"] for run in runs}),
        "seeds": sorted({run["seed"] for run in runs}),
        "teacher": {"spec": "teacher", "model": "resnet34"},
        "reshaping": True,
        "time_only": 8 if any("extrapolated" in run for run in runs) else 0,
        "costs": costs,
        "machine": {
            "processor": "a <processor>", "cores": 2, "gpus": [], "system": "Linux", "python": "3.11",
            "versions": {"torch": "2"}, "command": "prunekd bench store --out sweep", "started": "2026-01-01T00:00:00",
        },
        "commands": [{"command": "prunekd bench store --out sweep", "started": "2026-01-01T00:00:00"}],
        "runs": [run["name"] for run in runs],
    }  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(facts))
    return folder
