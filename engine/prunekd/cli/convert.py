"""`prunekd convert`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from prunekd.cli._shared import JSON, WORKERS, Speed, emit, progress_bar

if TYPE_CHECKING:
    from prunekd.store import Store

LISTED = 10  # quarantined inputs named on the screen; store.json lists all
WAYS = {"verbatim": "byte for byte", "encoded": "re-encoded", "raw": "raw pixels"}


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
@click.option("--train-split", help="Folder of the training split (in shards a word of the file names); `.`: SOURCE.")
@click.option("--val-split", help="The same for the validation split; `none` leaves it out.")
@click.option("--label-names", is_flag=True, help="Labels of shards are class names, even if some look like numbers.")
@click.option(
    "--max-quarantined",
    default="1%",
    show_default=True,
    help="Unreadable inputs allowed in each split, as a share (1%, rounded up) or a count; more are an error.",
)
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
    train_split: str | None,
    val_split: str | None,
    label_names: bool,
    max_quarantined: str,
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
    from prunekd.api.stores import convert

    speed, total = Speed(), 0
    with progress_bar(None, "convert") as update:

        def progress(done: int, inputs: int, quarantined: int) -> None:
            nonlocal total
            total = inputs
            rate = f"{speed.per_second(done):.0f} images/s"
            update(done, rate + (f", {quarantined} quarantined" if quarantined else ""), inputs)

        made = convert(
            source,
            store,
            kind=kind,
            max_side=max_side,
            mode=mode,
            quality=quality,
            val_fraction=val_fraction,
            train_split=train_split,
            val_split=val_split,
            label_names=label_names,
            max_quarantined=_share_or_count(max_quarantined),
            subset=subset_file,
            rank=rank,
            workers=workers,
            overwrite=overwrite,
            progress=progress,
        )
    seconds, rate = speed.seconds, speed.per_second(total)
    summary = {
        "store": str(made.path),
        "fingerprint": made.fingerprint,
        "classes": len(made.classes),
        "seconds": seconds,
        "images_per_second": rate,
        "splits": made.counts,
        "quarantined": made.quarantined,
        "ignored": made.ignored,
    }
    emit(summary, as_json, _text(made, seconds, rate))


def _share_or_count(text: str) -> float:
    """`1%` and `0.01` are the share 0.01, `20` is the count 20."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise ValueError(f"--max-quarantined is {text!r}; give a share, such as 1%, or a count, such as 20") from None


def _text(made: "Store", seconds: float, rate: float) -> str:
    lines = []
    for name, counts in made.counts.items():
        ways = [f"{counts[way]} {text}" for way, text in WAYS.items() if counts[way]]
        lines.append(f"{name}: {counts['samples']} samples, {counts['bytes'] / 1e6:.1f} MB ({', '.join(ways)})")
    lines += [f"ignored: {count} {what}" for what, count in made.ignored.items()]
    if made.quarantined:
        lines.append(f"quarantined: {len(made.quarantined)} unreadable inputs, all listed in store.json:")
        lines += [f"  {item['split']}/{item['key']}: {item['reason']}" for item in made.quarantined[:LISTED]]
    return "\n".join([*lines, f"{rate:.0f} images/s, {seconds:.1f} s", str(made.path)])
