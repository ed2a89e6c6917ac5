"""`prunekd compact`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prunekd.cli._shared import JSON, STORE, emit, progress_bar

if TYPE_CHECKING:
    from prunekd.pruning import Subset


@click.command("compact")
@STORE
@click.option(
    "--subset",
    "subset_file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The samples to copy, in the order in which they are to lie (from `prunekd select`).",
)
@click.option("--keep", type=float, help="Copy this smaller fraction of the same ranking [default: the whole subset].")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The store to make.")
@click.option("--overwrite", is_flag=True, help="Replace the store that is there.")
@JSON
def command(store: Path, subset_file: Path, keep: float | None, out: Path, overwrite: bool, as_json: bool) -> None:
    """Copy the samples that a subset keeps into a store of their own, the most valuable first.

    Every smaller subset of the same ranking is then a prefix of the new file. Images are copied byte for byte, other
    splits (val) are linked. Subsets, scores and soft labels made for STORE go on working with the new store, as long
    as it holds the samples they ask for. A copy that was stopped goes on when the command is given again.

    \b
    Example:
      prunekd compact store --subset half.parquet --out store-half
      prunekd train store-half --subset tenth.parquet --recipe imagenet --out run
    """
    from prunekd.pruning import read_subset
    from prunekd.store import open_store
    from prunekd.store.jobs.compact import compact

    started = time.perf_counter()
    opened, subset = open_store(store), read_subset(subset_file)
    subset.check(opened)
    count = kept_at(subset, keep)
    copied_before: int | None = None
    with progress_bar(count, "compact") as update:

        def progress(done: int, total: int, size: int) -> None:
            nonlocal copied_before
            copied_before = size if copied_before is None else copied_before
            rate = (size - copied_before) / (time.perf_counter() - started)
            update(done, f"{rate / 1e6:.0f} MB/s")

        made = compact(
            opened,
            subset.ids[:count],
            out,
            split=subset.info["split"],
            ranking={**subset.info, "keep": keep or subset.info["keep"], "kept": count},
            overwrite=overwrite,
            progress=progress,
        )
    split = made.split(subset.info["split"])
    summary = {
        "store": str(made.path),
        "fingerprint": made.fingerprint,
        "samples": count,
        "of": subset.info["total"],
        "bytes": split.payload_bytes,
        "seconds": time.perf_counter() - started,
    }
    emit(summary, as_json, _text(summary))


def kept_at(subset: "Subset", keep: float | None) -> int:
    """How many of a subset's samples the fraction `keep` of its ranking means; None for all of them.

    Raises:
        ValueError: the subset is smaller, or its ranking depends on the fraction.
    """
    import numpy as np

    from prunekd.pruning.policies import POLICIES

    info = subset.info
    if keep is None or keep == info["keep"]:
        return len(subset)
    if not 0 < keep < info["keep"]:
        raise ValueError(
            f"--keep is {keep:g}, but the subset has the fraction {info['keep']:g} of the ranking; give a smaller "
            "fraction above 0, or select a larger subset"
        )
    policy = POLICIES[info["policy"]]
    if "keep" in policy.needs:
        raise ValueError(f"the ranking of policy {policy.name} depends on the fraction: select {keep:g} first")
    return policy.count(keep, np.array(info["class_totals"]), info["balance"])


def _text(summary: dict[str, Any]) -> str:
    return (
        f"{summary['samples']} of {summary['of']} samples copied, {summary['bytes'] / 1e6:.1f} MB, "
        f"{summary['seconds']:.1f} s\n{summary['store']}"
    )
