"""`prunekd convert`."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prunekd.cli._shared import JSON, WORKERS, emit, progress_bar, say

if TYPE_CHECKING:
    from prunekd.pruning import Subset
    from prunekd.store.jobs.convert import ConvertSettings, SubsetSpec
    from prunekd.store.sources import Source

LISTED = 10  # quarantined inputs named on the screen; store.json lists all


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--source",
    "kind",
    default="auto",
    show_default=True,
    help="What SOURCE is: arrays, cifar, ilsvrc, imagefolder, parquet or webdataset; auto finds out and says so.",
)
@click.option("--max-side", default=1024, show_default=True, help="Shrink larger images to this side; 0: never.")
@click.option(
    "--mode",
    default="auto",
    show_default=True,
    help="auto (JPEG stays JPEG, other images are raw up to 64 pixels), jpeg or raw.",
)
@click.option("--quality", default=95, show_default=True, help="JPEG quality of what must be encoded.")
@click.option("--val-fraction", default=0.0, help="Hold this fraction of each class out as `val`.")
@click.option(
    "--subset",
    "subset_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Convert only the samples that this file of `prunekd select` keeps, and all of the other splits.",
)
@click.option("--rank", is_flag=True, help="Lay the samples of --subset out by rank, as `prunekd compact` does.")
@click.option("--overwrite", is_flag=True, help="Replace the store that is there.")
@WORKERS
@JSON
def command(
    source: Path,
    store: Path,
    kind: str,
    max_side: int,
    mode: str,
    quality: int,
    val_fraction: float,
    subset_file: Path | None,
    rank: bool,
    overwrite: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Convert the dataset SOURCE into the folder STORE, which FFCV and DALI read too.

    JPEG files that fit are stored byte for byte. A conversion that was stopped goes on when the command is given
    again. Unreadable inputs are left out and listed with their reasons. SOURCE is a folder or file; of shards it may be
    a pattern.

    \b
    Example:
      prunekd convert imagenet store
      prunekd convert 'shards/train-{0000..0127}.tar' store --val-fraction 0.02
      prunekd convert imagenet store-half --subset half.parquet --rank
    """
    from prunekd.pruning import read_subset
    from prunekd.store.jobs.convert import ConvertSettings, convert
    from prunekd.store.sources import open_source, recognise_source

    started = time.perf_counter()
    if kind == "auto":
        kind, reason = recognise_source(source.absolute())
        say(f"{source} is read as {kind} ({reason}); --source says otherwise")
    opened = open_source(source, kind, val_fraction)
    settings = ConvertSettings(max_side=max_side, mode=mode, quality=quality, workers=workers or 0, overwrite=overwrite)
    if rank and subset_file is None:
        raise ValueError("--rank orders the samples of a subset; give one with --subset")
    keeping = None
    if subset_file is not None:
        keeping = keeping_of(read_subset(subset_file), rank, opened, settings, say)
    total = sum(len(opened.labels(split)) for split in opened.splits)
    if keeping is not None:
        total += len(keeping.ids) - len(opened.labels(keeping.split))
    before = None  # inputs that an interrupted conversion had done: they do not count for the speed of this one
    with progress_bar(total, "convert") as update, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an input stands in its reason

        def progress(done: int, _total: int, quarantined: int) -> None:
            nonlocal before
            before = done if before is None else before
            rate = (done - before) / (time.perf_counter() - started)
            update(done, f"{rate:.0f} images/s" + (f", {quarantined} quarantined" if quarantined else ""))

        made = convert(opened, store, settings, progress, keeping)
    seconds = time.perf_counter() - started
    summary = {
        "store": str(made.path),
        "fingerprint": made.fingerprint,
        "classes": len(made.classes),
        "seconds": seconds,
        "images_per_second": (total - (before or 0)) / seconds,
        "splits": made.counts,
        "quarantined": made.quarantined,
        "ignored": made.ignored,
    }
    emit(summary, as_json, _text(summary))


def keeping_of(
    subset: "Subset", rank: bool, source: "Source", settings: "ConvertSettings", notice: Callable[[str], None]
) -> "SubsetSpec":
    """The samples of a subset, to be converted straight from the source of the store it was made for.

    If that store is at hand it must have been made from this source with these settings. If not, the sizes of the
    classes and how many of each are kept must fit, and `notice` is told that the rest is taken on trust.

    Raises:
        ValueError: something does not fit; the message says what.
    """
    import numpy as np

    from prunekd.store import STORE_FILE, open_store
    from prunekd.store.jobs.convert import SubsetSpec

    info = subset.info
    name, parent = info["split"], Path(info["store"]["path"])
    lineage: tuple[str, ...] = (info["fingerprint"],)
    keeping = SubsetSpec(split=name, ids=subset.ids if rank else np.sort(subset.ids))
    keeping.check(source)
    labels = source.labels(name)
    held, kept = (np.bincount(values, minlength=len(source.classes)) for values in (labels, labels[subset.ids]))
    if kept.tolist() != info["class_counts"] or (held < info["class_totals"]).any():
        raise ValueError(
            f"the subset was made for the store {parent}, whose classes or their sizes are not those of this source"
        )
    store = open_store(parent) if (parent / STORE_FILE).is_file() else None
    if store is not None and info["fingerprint"] in (store.fingerprint, *store.lineage):
        if _listed(store.source) != _listed(source.describe()) or store.settings != settings.shaping():
            raise ValueError(
                f"the subset was made for the store {parent}, which was converted from another source or with other "
                "settings than these; give the same ones, or compact that store"
            )
        lineage = (store.fingerprint, *store.lineage)
    else:
        notice(f"{parent} is not at hand: that it came from this source with these settings is taken on trust")
    if rank and source.kind == "parquet":
        notice(
            "Parquet is read row group by row group: by rank nearly every sample costs a whole one; converting "
            "without --rank and then `prunekd compact` is faster"
        )
    return SubsetSpec(
        split=name,
        ids=keeping.ids,
        parent={"path": str(parent), "samples": info["total"]},
        lineage=lineage,
        ranking=dict(info) if rank else {},
    )


def _listed(description: dict[str, Any]) -> dict[str, Any]:
    """What a source's description says of its inputs, wherever they lie."""
    return {name: value for name, value in description.items() if name not in ("path", "folders")}


def _text(summary: dict[str, Any]) -> str:
    lines = []
    for name, counts in summary["splits"].items():
        ways = [f"{counts[way]} {text}" for way, text in WAYS.items() if counts[way]]
        lines.append(f"{name}: {counts['samples']} samples, {counts['bytes'] / 1e6:.1f} MB ({', '.join(ways)})")
    lines += [f"ignored: {count} {what}" for what, count in summary["ignored"].items()]
    quarantined = summary["quarantined"]
    if quarantined:
        lines.append(f"quarantined: {len(quarantined)} unreadable inputs, all listed in store.json:")
        lines += [f"  {item['split']}/{item['key']}: {item['reason']}" for item in quarantined[:LISTED]]
    lines.append(f"{summary['images_per_second']:.0f} images/s, {summary['seconds']:.1f} s")
    return "\n".join([*lines, summary["store"]])


WAYS = {"verbatim": "byte for byte", "encoded": "re-encoded", "raw": "raw pixels"}
