"""A subset of a store in the forms other tools read: lists, folders, records.

Everything is written in the order of the ids, for a subset its ranking. Every export has `ids.npy` and `labels.npy`
(int64, by position; `weights.npy`, float32, if there are weights) and `export.json`. It is made beside its target and
renamed, so it is whole or absent, and nothing is overwritten.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path

import numpy as np

from prunekd.common.files import sync_file, sync_folder, write_json
from prunekd.common.lock import locked
from prunekd.common.registry import unknown
from prunekd.store.format.store import Store
from prunekd.store.jobs.containers import CONTAINERS, Container
from prunekd.store.jobs.export_info import EXPORT_FILE, VERSION, ExportInfo, Shard, in_containers, read_export
from prunekd.store.jobs.export_job import Job, Progress
from prunekd.store.jobs.room import room_left

LABELS = ("class", "id")
CLASS_MAP = "classes.txt"
OWN_FILES = (EXPORT_FILE, CLASS_MAP, "file_list.txt", "ids.npy", "labels.npy", "weights.npy")
SHARD_BYTES = 1 << 30
_NOT_IN_NAMES = r"[/\0\r\n]"  # of folders; a line end would split a line of the class map


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """What an export looks like.

    format:
        file_list: `file_list.txt` over the files of the image folder the store was made from, for DALI's readers.file.
        folder: an image folder CLASS/ID.jpg, and `file_list.txt` over it; raw samples become PNG.
        tfrecord, recordio, webdataset: containers, each with DALI's index beside it.
        npy: the arrays alone.
    label: what the lists and containers have as label, `class` or `id`; None for the id in lists, the class in
        containers.
    shard_bytes: a container ends after so many bytes and another begins; None for 2^30. A recordio export is one file.
    links: symbolic links to the source's files instead of copies, in a folder.
    """

    format: str
    label: str | None = None
    shard_bytes: int | None = None
    links: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown("export format", self.format, FORMATS)
        if self.label not in (None, *LABELS):
            raise ValueError(f"label is {self.label!r}; it must be one of {', '.join(LABELS)}")
        if self.shard_bytes is not None:
            several = [name for name, container in CONTAINERS.items() if container.several]
            if self.format not in several:
                raise ValueError(f"shard_bytes is for {', '.join(several)}, not {self.format}")
            if self.shard_bytes < 1:
                raise ValueError(f"shard_bytes is {self.shard_bytes}; it must be 1 or more")
        if self.links and self.format != "folder":
            raise ValueError(f"links are for the format folder, not {self.format}")


def export(
    store: Store,
    ids: np.ndarray,
    target: str | Path,
    settings: ExportSettings,
    *,
    split: str = "train",
    weights: np.ndarray | None = None,
    subset: Mapping[str, object] | None = None,
    containers: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> ExportInfo:
    """Write the samples `ids`, int64 (k,), of a split in another form; returns what export.json says.

    Args:
        target: the folder to make.
        weights: float32 (k,).
        subset: provenance of the ids, as JSON has it.
        containers: an export of more samples in the same format. Its containers are linked to, not copied, and
            the indices name the kept samples alone, in the containers' order.
        progress: called with samples done and in all.

    Raises:
        ValueError: the target exists, ids that are not in the split, a source that cannot be listed or linked to, a
            corrupt sample (convert again), or `containers` that do not fit.
        OSError: it cannot be written; the message names the file.
        RuntimeError: another process is exporting to the same target.
    """
    target, part = Path(target).absolute(), store.split(split)
    if target.exists() or target.is_symlink():
        raise ValueError(f"{target} exists; exports are never overwritten: choose another name or remove it")
    job = Job(store, part, np.asarray(ids, dtype=np.int64), weights, settings.label, progress)
    if containers is not None:
        job = in_containers(job, settings.format, containers)
    info: ExportInfo = {
        "version": VERSION,
        "format": settings.format,
        "store": {"path": str(store.path.absolute()), "fingerprint": store.fingerprint},
        "split": split,
        "samples": len(job.ids),
        "classes": list(store.classes),
        "subset": None if subset is None else dict(subset),
    }
    with _naming(target, int(part.sizes[job.rows].sum())), _made_whole(target) as folder:
        write = FORMATS[settings.format] if containers is None else _indices(containers)
        info |= write(job, folder, settings)
        np.save(folder / "ids.npy", job.ids)
        np.save(folder / "labels.npy", part.labels[job.rows])
        if job.weights is not None:
            np.save(folder / "weights.npy", job.weights)
        write_json(folder / EXPORT_FILE, info)
    return info


Write = Callable[[Job, Path, ExportSettings], ExportInfo]  # fills the folder; returns its part of export.json


def _file_list(job: Job, folder: Path, settings: ExportSettings) -> ExportInfo:
    _write_list(folder, [str(file) for file in job.source_files("--format file_list")], job.shown("id"))
    return {"label": job.label or "id", "files": ["file_list.txt"]}


def _folder(job: Job, folder: Path, settings: ExportSettings) -> ExportInfo:
    """CLASS/ID.EXT. Classes that lost all their samples keep an empty folder, or the others would change numbers.

    Readers that number the classes by the images they find (timm) need the class map for the same numbers.
    """
    names = class_folders(job.store.classes)
    for name in names:
        (folder / name).mkdir()
    labels, paths = job.split.labels[job.rows].tolist(), []
    if settings.links:
        for file, label, sample in zip(job.source_files("--links"), labels, job.ids.tolist(), strict=True):
            paths.append(f"{names[label]}/{sample:09}{file.suffix.lower()}")
            (folder / paths[-1]).symlink_to(file)
    else:
        for label, one in zip(labels, job.samples("class"), strict=True):
            paths.append(f"{names[label]}/{one.id:09}.{one.extension}")
            (folder / paths[-1]).write_bytes(one.payload)
    _write_list(folder, paths, job.shown("id"))
    (folder / CLASS_MAP).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    there = set(labels)
    return {
        "label": job.label or "id",
        "files": ["file_list.txt"],
        "folders": names,
        "class_map": CLASS_MAP,
        "empty_classes": [name for label, name in enumerate(names) if label not in there],
    }


def class_folders(classes: Sequence[str]) -> list[str]:
    """Names of folders whose sorted order is the order of the classes: the classes' own if these will do."""
    if list(classes) == sorted(set(classes)) and all(_plain(name) for name in classes):
        return list(classes)
    width = len(str(len(classes) - 1))
    return [f"{k:0{width}}-{re.sub(_NOT_IN_NAMES, '_', name)}".strip() for k, name in enumerate(classes)]


def _plain(name: str) -> bool:
    return name not in ("", ".", "..", *OWN_FILES) and name == name.strip() and not re.search(_NOT_IN_NAMES, name)


def _write_list(folder: Path, paths: list[str], labels: list[int]) -> None:
    """DALI's file_list: a path, a space, a label; relative paths count from where the list lies."""
    for path in paths:
        if "\n" in path:
            raise ValueError(f"{path!r} holds a line break, which a file list cannot have: export with --format folder")
    lines = (f"{path} {label}\n" for path, label in zip(paths, labels, strict=True))
    text = "".join(lines)
    (folder / "file_list.txt").write_text(text, encoding="utf-8", errors="surrogateescape")  # paths byte for byte


def _records(container: Container) -> Write:
    """Writes containers NAME-00000.SUFFIX, ... and their indices."""

    def write(job: Job, folder: Path, settings: ExportSettings) -> ExportInfo:
        samples, end = job.samples("class"), float("inf")
        if container.several:
            end = settings.shard_bytes or SHARD_BYTES
        shards: list[Shard] = []
        sample = next(samples, None)
        while sample is not None:
            path = folder / f"{job.split.name}-{len(shards):05}{container.suffix}"
            lines: list[str] = []
            with path.open("wb") as file:
                while sample is not None and (not lines or file.tell() < end):
                    lines.append(container.add(file, sample))
                    sample = next(samples, None)
                file.write(container.end)
            path.with_suffix(".idx").write_text(container.head(len(lines)) + "".join(lines), encoding="utf-8")
            shards.append({"file": path.name, "samples": len(lines)})
        return {"label": job.label or "class", "shards": shards}

    return write


FORMATS: dict[str, Write] = {
    "file_list": _file_list,
    "folder": _folder,
    **{name: _records(container) for name, container in CONTAINERS.items()},
    "npy": lambda job, folder, settings: {"label": None},
}


def _indices(export: Path) -> Write:
    """Links to another export's containers, each with an index of the kept samples; ones without any are left out."""

    def write(job: Job, folder: Path, settings: ExportSettings) -> ExportInfo:
        container = CONTAINERS[settings.format]
        info, ids = read_export(export)
        kept, position = np.isin(ids, job.ids), 0
        shards: list[Shard] = []
        for shard in info["shards"]:
            chosen = kept[position : position + shard["samples"]]
            position += shard["samples"]
            if not chosen.any():
                continue
            name = Path(shard["file"])
            lines = (
                (export / name.with_suffix(".idx"))
                .read_text(encoding="utf-8")
                .splitlines(keepends=True)[-len(chosen) :]
            )
            taken = [line for line, keep in zip(lines, chosen.tolist(), strict=True) if keep]
            (folder / name.with_suffix(".idx")).write_text(
                container.head(len(taken)) + "".join(taken), encoding="utf-8"
            )
            (folder / name).symlink_to((export / name).resolve())
            shards.append({"file": shard["file"], "samples": len(taken)})
        return {"label": info["label"], "shards": shards, "containers": str(export.absolute())}

    return write


@contextmanager
def _made_whole(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target`; on success it is flushed and renamed to it, on any error removed.

    What an export that was killed has left behind is removed by the next one to the same target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.export")
    folder = work / "unfinished"
    with locked(work, "export"):
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
            for path in folder.rglob("*"):
                if not path.is_symlink():
                    sync_file(path)  # folders too
            sync_folder(folder)
            os.rename(folder, target)  # fails where something appeared meanwhile, but for an empty folder
            sync_folder(target.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _naming(target: Path, needed: int) -> Iterator[None]:
    """Say of a system error what it means for the export to `target`, which takes about `needed` bytes."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        room = f" ({room_left(target.parent, needed)})" if error.errno == ENOSPC else ""
        raise OSError(
            f"cannot export to {target}: {error.filename or target}: {error.strerror}{room}; nothing is left of it: "
            "mend that, then run the same command again"
        ) from error
