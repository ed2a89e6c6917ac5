"""`prunekd export`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from prunekd.cli._shared import JSON, STORE, emit, progress_bar

if TYPE_CHECKING:
    from prunekd.store.jobs.export import ExportInfo

MIB = 1 << 20


@click.command("export")
@STORE
@click.option(
    "--format",
    "form",
    required=True,
    help="file_list, folder, tfrecord, recordio, webdataset or npy.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to make.")
@click.option(
    "--subset",
    "subset_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The samples to export, in its order [default: all of the split].",
)
@click.option("--split", help="[default: the subset's, or train]")
@click.option(
    "--label",
    type=click.Choice(["class", "id"]),
    help="What readers get as label [default: id in file lists, class in records].",
)
@click.option(
    "--shard-mib",
    type=click.FloatRange(min=0, min_open=True),
    help="Size in MiB at which a tfrecord or webdataset container ends [default: 1024].",
)
@click.option("--links", is_flag=True, help="In a folder: links to the source's files instead of copies.")
@click.option(
    "--containers",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="An export of more samples in the same format: link to its containers and write indices of the kept alone.",
)
@JSON
def command(
    store: Path,
    form: str,
    out: Path,
    subset_file: Path | None,
    split: str | None,
    label: str | None,
    shard_mib: float | None,
    links: bool,
    containers: Path | None,
    as_json: bool,
) -> None:
    """Hand the kept samples of STORE to other tools.

    file_list is for DALI's readers.file over the image folder the store was made from; tfrecord, recordio and
    webdataset come with the indices that DALI's readers take; folder is for everything else. ids.npy, labels.npy and
    export.json lie beside them. Records of the whole store serve every subset: --containers writes only new indices.

    \b
    Example:
      prunekd export store --subset half.parquet --format file_list --out half
      prunekd export store --format tfrecord --out records
      prunekd export store --subset half.parquet --format tfrecord --containers records --out half-records
    """
    from prunekd.api.stores import export

    with progress_bar(None, f"export {form}") as update:
        info = export(
            store,
            out,
            format=form,
            subset=subset_file,
            split=split,
            label=label,
            shard_bytes=None if shard_mib is None else max(1, round(shard_mib * MIB)),
            links=links,
            containers=containers,
            progress=lambda done, total: update(done, "", total),
        )
    emit({"out": str(out), **info}, as_json, _summary(out, info))


def _summary(out: Path, info: "ExportInfo") -> str:
    parts = [f"{info['samples']} samples as {info['format']} in {out}"]
    if "shards" in info:
        parts.append(f"{len(info['shards'])} containers, each with DALI's index; label: {info['label']}")
    if "files" in info:
        parts.append(f"{', '.join(info['files'])}; label: {info['label']}")
    if info.get("empty_classes"):
        empty = info["empty_classes"]
        parts.append(
            f"classes without images ({len(empty)}: {empty[0]}, ...) have an empty folder, so that the others keep "
            "their labels: torchvision's ImageFolder needs allow_empty=True, timm needs --class-map "
            f"{out / info['class_map']}"
        )
    return "\n".join(parts)
