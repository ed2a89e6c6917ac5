"""`prunekd convert`."""

import time
import warnings
from pathlib import Path
from typing import Any

import click

from prunekd.cli._shared import JSON, WORKERS, emit, progress_bar, say

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
    overwrite: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Convert the dataset SOURCE into the folder STORE, which FFCV and DALI read too.

    JPEG files that fit are stored byte for byte. A conversion that was stopped goes on when the command is given
    again. Unreadable inputs are left out and listed with their reasons.

    \b
    Example:
      prunekd convert imagenet store
    """
    from prunekd.store.convert import ConvertSettings, convert
    from prunekd.store.sources import open_source, recognise_source

    started = time.perf_counter()
    if kind == "auto":
        kind, reason = recognise_source(source.absolute())
        say(f"{source} is read as {kind} ({reason}); --source says otherwise")
    opened = open_source(source, kind, val_fraction)
    settings = ConvertSettings(max_side=max_side, mode=mode, quality=quality, workers=workers or 0, overwrite=overwrite)
    total = sum(len(opened.labels(split)) for split in opened.splits)
    before = None  # inputs that an interrupted conversion had done: they do not count for the speed of this one
    with progress_bar(total, "convert") as update, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an input stands in its reason

        def progress(done: int, _total: int, quarantined: int) -> None:
            nonlocal before
            before = done if before is None else before
            rate = (done - before) / (time.perf_counter() - started)
            update(done, f"{rate:.0f} images/s" + (f", {quarantined} quarantined" if quarantined else ""))

        made = convert(opened, store, settings, progress, say)
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
