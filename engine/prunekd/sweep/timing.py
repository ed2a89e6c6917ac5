"""Times without training to the end: a few short epochs of a run, and what they say of the whole."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from prunekd.pruning.parquet import made_for
from prunekd.pruning.subset import Subset
from prunekd.sweep.grid import PlannedRun
from prunekd.training import RunSpec, Trainer
from prunekd.training.recipe import adjust

MEASURED = 3  # short epochs that count; one before them warms up


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A run, what it would be in full, and the trainer of its short epochs."""

    run: PlannedRun
    full: RunSpec
    trainer: Trainer


def shorten(spec: RunSpec, out: Path, batches: int) -> RunSpec:
    """The run `spec` with short epochs of at most `batches` steps, in an emptied folder `out`.

    The samples are drawn at random from those the run keeps, so sizes of files and images are typical. Alpha is that of
    the whole run. A dynamic policy is left out: choosing costs little, and its share is accounted for by `extrapolate`.
    """
    shutil.rmtree(out, ignore_errors=True)
    settings, _ = spec.objective_settings()
    fixed = ["dynamic.policy=''", f"epochs={1 + MEASURED}", "checkpoint.every_steps=0", "checkpoint.every_minutes=1e9"]
    if spec.distils:
        fixed.append(f"distill.alpha={settings.alpha}")
    ids = spec.store.split("train").ids if spec.subset is None else spec.subset.ids
    count = min(len(ids), batches * spec.recipe.batch_size)
    chosen = np.random.default_rng(spec.recipe.seed).choice(ids, size=count, replace=False)
    info = spec.subset.info if spec.subset else _whole_info(spec)
    recipe = adjust(spec.recipe, ["budget.steps=0", "budget.samples=0", "dynamic.parameters={}", *fixed])
    return replace(spec, recipe=recipe, out=out, subset=Subset(ids=chosen, info=info))


def _whole_info(spec: RunSpec) -> dict[str, Any]:
    """What a subset says of itself, for a draw from all samples."""
    count = len(spec.store.split("train"))
    return {"policy": "all", "keep": 1.0, "kept": count, "total": count, **made_for(spec.store, "train")}


def samples_per_epoch(spec: RunSpec, kept: int) -> int:
    """Samples an epoch over `kept` of them visits, less the remainder that fills no batch."""
    share = spec.recipe.dynamic.parameters.get("keep", 1.0) if spec.recipe.dynamic.policy else 1.0
    return max(1, int(kept * share)) // spec.recipe.batch_size * spec.recipe.batch_size


def samples_per_run(spec: RunSpec, kept: int) -> int:
    """Samples the whole run visits if it keeps `kept`: its budget, or so many in each of its epochs."""
    budget, batch_size = spec.recipe.budget, spec.recipe.batch_size
    steps = budget.steps or budget.samples // batch_size
    return steps * batch_size or samples_per_epoch(spec, kept) * spec.recipe.epochs


def extrapolate(timed: Timed) -> dict[str, Any]:
    """Contents of result.json for the whole run, from the short epochs after the first."""
    spec, trainer = timed.full, timed.trainer
    records = trainer.epochs[1:]
    per_epoch, total = samples_per_epoch(spec, spec.kept), samples_per_run(spec, spec.kept)
    epoch_seconds = [record["seconds"] / record["samples"] * per_epoch for record in records]
    train_seconds = median(epoch_seconds) * total / per_epoch
    wait = sum(record["data_wait_seconds"] for record in records) / sum(record["seconds"] for record in records)
    seen = sum(record["samples"] for record in trainer.epochs)
    scale = total / seen
    counters = {name: round(amount * scale) for name, amount in trainer.ledger.counters.items()}
    settings, _ = spec.objective_settings()
    phases: Mapping[str, float] = {"data_wait": wait * train_seconds, "step": (1 - wait) * train_seconds}
    return {
        "name": timed.run.name,
        "seed": timed.run.seed,
        **spec.tags,
        "model": spec.model_name,
        "epochs": timed.run.epochs,
        "samples_kept": spec.kept,
        "samples_total": spec.total,
        "samples_seen": total,
        "top1": None,
        "best_top1": None,
        "train_seconds": train_seconds,
        "epoch_seconds": epoch_seconds,
        "images_per_second": total / train_seconds,
        "data_wait_share": wait,
        "bytes_read": counters.get("bytes_read", 0),
        "payload_bytes": counters.get("payload_bytes", 0),
        "alpha": settings.alpha if spec.distils else None,
        "temperature": settings.temperature if spec.distils else None,
        "ledger": {"wall_seconds": train_seconds, "seconds": dict(phases), "counters": counters},
        "extrapolated": {
            "batches": round(median(record["samples"] for record in records) / spec.recipe.batch_size),
            "epochs": len(records),
            "samples_timed": int(sum(record["samples"] for record in records)),
            "samples_total": total,
        },
    }
