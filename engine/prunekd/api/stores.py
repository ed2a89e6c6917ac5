"""Make stores, open them, and hand their samples to other tools."""

import logging
from pathlib import Path
from typing import TypeAlias

import numpy as np

from prunekd.pruning.prefix import prefix
from prunekd.pruning.subset import Subset, as_subset, read_subset
from prunekd.store.format import store as store_format
from prunekd.store.format.store import Store
from prunekd.store.jobs.compact import Progress as CompactProgress
from prunekd.store.jobs.compact import compact as compact_store
from prunekd.store.jobs.convert import Progress as ConvertProgress
from prunekd.store.jobs.convert import convert as convert_source
from prunekd.store.jobs.export import ExportInfo, ExportSettings
from prunekd.store.jobs.export import export as export_samples
from prunekd.store.jobs.export_job import Progress as ExportProgress
from prunekd.store.jobs.settings import ConvertSettings
from prunekd.store.jobs.subset_spec import SubsetSpec
from prunekd.store.sources import Layout, Source, open_source, recognise_source
from prunekd.store.sources.found import check_classes, found_lines

logger = logging.getLogger(__name__)

AnyStore: TypeAlias = Store | str | Path
AnySubset: TypeAlias = Subset | str | Path | np.ndarray


def open_store(store: AnyStore) -> Store:
    """Open the store in a folder; a Store that is open already is returned as it is.

    Its files are checked against each other; images and keys are not read.

    Raises:
        ValueError: not a store, an unfinished one, or damaged; the message names the file.

    Example:
        store = prunekd.open_store("store")
        labels = store.split("train").labels
        per_class = np.bincount(labels, minlength=len(store.classes))
    """
    return store if isinstance(store, Store) else store_format.open_store(store)


def convert(
    source: Source | str | Path,
    store: str | Path,
    *,
    kind: str = "auto",
    max_side: int = 1024,
    mode: str = "auto",
    quality: int = 95,
    val_fraction: float = 0.0,
    train_split: str | None = None,
    val_split: str | None = None,
    label_names: bool = False,
    max_quarantined: float = 0.01,
    subset: AnySubset | None = None,
    rank: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    progress: ConvertProgress | None = None,
) -> Store:
    """Convert a dataset into a store, which FFCV and DALI read too.

    JPEG files that fit are stored byte for byte. A conversion that was stopped goes on when it is called again.
    Unreadable inputs are left out; `Store.quarantined` lists them with their reasons.

    Args:
        source: a folder or file; for shards a glob pattern. Or an object with the methods of
            `prunekd.store.sources.Source`.
        store: the folder to make.
        kind: of the source: arrays, cifar, ilsvrc, imagefolder, parquet or webdataset. `auto` finds out, and the log
            says what it found.
        max_side: larger images are shrunk to this side, in pixels; 0 for never.
        mode: auto (JPEG stays JPEG, other images are raw up to 64 pixels), jpeg or raw.
        quality: JPEG quality of what must be encoded, 1 to 100.
        val_fraction: hold this fraction of each class out as `val`.
        train_split: name of the folder (for shards: a word in the file names) of the training split, where it is not
            one of the usual names. "." means that every folder of `source` is a class.
        val_split: the same for the validation split; "none" leaves it out.
        label_names: labels of shards are class names, even if some look like numbers.
        max_quarantined: unreadable inputs allowed in each split: a float is a share, rounded up, an int a count.
        subset: convert only these samples, and all of the other splits: a Subset, its file, or ids of `train`, int64
            (k,), which are positions in the source's order.
        rank: store the samples of `subset` in its order, as `compact` does.
        workers: threads; None for one per core.
        overwrite: replace the store that is there.
        progress: called with (inputs done, inputs in all, inputs quarantined); first with what an interrupted
            conversion had done.

    Raises:
        ValueError: no such source, one with a single class, a store that exists, a setting out of range, a subset of
            another source, or more unreadable inputs than `max_quarantined`.
        OSError: the store cannot be written (disk full), or the source went away; the message names the file and what
            to do. What was converted is kept.
        RuntimeError: another process is converting to the same folder.

    Example:
        store = prunekd.convert("photos", "photos-store", max_side=64)
        print(store.classes, store.counts, store.quarantined)
    """
    settings = ConvertSettings(
        max_side=max_side,
        mode=mode,
        quality=quality,
        workers=workers or 0,
        overwrite=overwrite,
        max_quarantined=max_quarantined,
    )
    layout = Layout(train_split=train_split, val_split=val_split, label_names=label_names)
    opened = _open_source(source, kind, val_fraction, layout)
    check_classes(opened)
    spec = None
    if subset is not None:
        spec = _subset_spec(subset, opened, settings, rank)
    elif rank:
        raise ValueError("--rank orders the samples of a subset; give one with --subset")
    return convert_source(opened, store, settings, progress, spec)


def _open_source(source: Source | str | Path, kind: str, val_fraction: float, layout: Layout) -> Source:
    if not isinstance(source, str | Path):
        if kind != "auto" or val_fraction or layout.says:
            raise ValueError(
                f"kind {kind!r}, val_fraction {val_fraction:g} and {layout.says or 'split names'} say how to open a "
                "path, and the source is open already; give its path, or leave them out"
            )
        return source
    if kind == "auto":
        kind, reason = recognise_source(Path(source).absolute())
        logger.info(f"{source} is read as {kind} ({reason}); --source says otherwise")
    opened = open_source(source, kind, val_fraction, layout)
    for line in found_lines(opened):
        logger.info(line)
    return opened


def _subset_spec(subset: AnySubset, source: Source, settings: ConvertSettings, rank: bool) -> SubsetSpec:
    if isinstance(subset, str | Path):
        subset = read_subset(Path(subset))
    if isinstance(subset, Subset):
        return SubsetSpec.of_selection(subset, source, settings, rank)
    return SubsetSpec.of_ids(subset, source, rank=rank)


def compact(
    store: AnyStore,
    target: str | Path,
    *,
    subset: AnySubset,
    keep: float | None = None,
    overwrite: bool = False,
    progress: CompactProgress | None = None,
) -> Store:
    """Copy the samples that a subset keeps into a store of their own, the most valuable first.

    Every smaller subset of the same ranking is then a prefix of the new file. Images are copied byte for byte, other
    splits are linked. Subsets, scores and soft labels made for `store` go on working with the new one, as long as it
    holds the samples they ask for. A copy that was stopped goes on when it is called again.

    Args:
        target: the folder to make.
        subset: a Subset, its file, or ids of `train`, int64 (k,), in the order in which they are to lie.
        keep: copy this smaller fraction of the same ranking; None for the whole subset.
        overwrite: replace the store that is there.
        progress: called with (samples done, samples in all, bytes done).

    Raises:
        ValueError: the target exists, the subset belongs to another store, or `keep` is not below its fraction.
        OSError: the target cannot be written (disk full); the message names the file and what to do.
        RuntimeError: another process is writing to the same folder.
    """
    opened = open_store(store)
    chosen = prefix(opened, as_subset(opened, subset, None), keep)
    return compact_store(
        opened,
        chosen.ids,
        target,
        split=chosen.info["split"],
        ranking=chosen.info,
        overwrite=overwrite,
        progress=progress,
    )


def export(
    store: AnyStore,
    out: str | Path,
    *,
    format: str,
    subset: AnySubset | None = None,
    split: str | None = None,
    label: str | None = None,
    shard_bytes: int | None = None,
    links: bool = False,
    containers: str | Path | None = None,
    progress: ExportProgress | None = None,
) -> ExportInfo:
    """Write samples of a store in a form that other tools read; returns the contents of export.json.

    Args:
        out: the folder to make.
        format: file_list, folder, tfrecord, recordio, webdataset or npy; see ExportSettings.
        subset: a Subset, its file, or ids, int64 (k,); None for the whole split.
        split: None for the subset's, or train.
        label: what readers get as label, `class` or `id`; None for the id in lists, the class in containers.
        shard_bytes: size in bytes at which a tfrecord or webdataset container ends; None for 2^30.
        links: in a folder, links to the source's files instead of copies.
        containers: an export of more samples in the same format: link to its containers and write only indices.
        progress: called with (samples done, samples in all).

    Raises:
        ValueError: `out` exists, a subset of another store, an unknown format, or settings that do not go with it.
        OSError: it cannot be written.
    """
    settings = ExportSettings(format=format, label=label, shard_bytes=shard_bytes, links=links)
    opened = open_store(store)
    chosen = None if subset is None else as_subset(opened, subset, split)
    name = split or ("train" if chosen is None else chosen.info["split"])
    return export_samples(
        opened,
        opened.split(name).ids if chosen is None else chosen.ids,
        out,
        settings,
        split=name,
        weights=None if chosen is None else chosen.weights,
        subset=None if chosen is None else chosen.describe(),
        containers=None if containers is None else Path(containers),
        progress=progress or (lambda done, total: None),
    )
