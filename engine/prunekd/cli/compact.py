"""`prunekd compact`."""

from pathlib import Path

import click

from prunekd.cli._shared import JSON, STORE, Speed, emit, progress_bar


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
    from prunekd.api.stores import compact

    speed = Speed()
    with progress_bar(None, "compact") as update:
        made = compact(
            store,
            out,
            subset=subset_file,
            keep=keep,
            overwrite=overwrite,
            progress=lambda done, total, size: update(done, f"{speed.per_second(size) / 1e6:.0f} MB/s", total),
        )
    assert made.compacted is not None
    name = made.compacted["split"]
    split = made.split(name)
    summary = {
        "store": str(made.path),
        "fingerprint": made.fingerprint,
        "samples": len(split),
        "of": made.whole(name),
        "bytes": split.payload_bytes,
        "seconds": speed.seconds,
    }
    text = (
        f"{summary['samples']} of {summary['of']} samples copied, {split.payload_bytes / 1e6:.1f} MB, "
        f"{summary['seconds']:.1f} s\n{made.path}"
    )
    emit(summary, as_json, text)
