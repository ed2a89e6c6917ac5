"""What an export says of itself in export.json, and whether the containers of one fit another."""

from pathlib import Path
from typing import TypedDict

import numpy as np

from prunekd.common.arrays import load_array
from prunekd.common.files import read_json
from prunekd.store.jobs.containers import CONTAINERS
from prunekd.store.jobs.export_job import Job

EXPORT_FILE = "export.json"
VERSION = 1


class StoreName(TypedDict):
    """Which store an export was made of."""

    path: str
    fingerprint: str


class Shard(TypedDict):
    """One container of an export: its file name and how many samples it, or its index, holds."""

    file: str
    samples: int


class ExportInfo(TypedDict, total=False):
    """What export.json says.

    Always: version, format, store, split, samples, classes, subset (provenance of the ids, or None), label (what the
    readers see: `class`, `id`, or None for none). Of lists and folders: files, folders. Of containers: shards, and
    containers, the folder of the export whose containers are linked to. Of folders: class_map, the file with a class
    folder per line, in the order of the labels, and empty_classes, the folders without images.
    """

    version: int
    format: str
    store: StoreName
    split: str
    samples: int
    classes: list[str]
    subset: dict[str, object] | None
    label: str | None
    files: list[str]
    folders: list[str]
    class_map: str
    empty_classes: list[str]
    shards: list[Shard]
    containers: str


def read_export(path: Path) -> tuple[ExportInfo, np.ndarray]:
    """What the export.json in a folder says, and its ids, int64 (n,).

    Raises:
        ValueError: it is no export, or damaged: its entries are not of their kinds, or disagree with its ids.
    """
    info = read_json(path / EXPORT_FILE)
    ids = load_array(path / "ids.npy", "export again", mapped=False)
    problem = _problem(info, ids)
    if problem:
        raise ValueError(f"{path / EXPORT_FILE} is damaged: {problem}; export again")
    checked: ExportInfo = info
    return checked, ids


def _problem(info: object, ids: np.ndarray) -> str:
    """What is wrong with an export; empty if nothing is."""
    if not isinstance(info, dict) or not all(isinstance(info.get(name), str) for name in ("format", "split")):
        return "it lacks the format or the split"
    store = info.get("store")
    if not isinstance(store, dict) or not all(isinstance(store.get(name), str) for name in ("path", "fingerprint")):
        return "'store' must be a map with path and fingerprint"
    if ids.dtype != np.int64 or ids.ndim != 1 or len(np.unique(ids)) < len(ids):
        return f"ids.npy is {ids.dtype} {ids.shape}, and must hold different ids, int64 (n,)"
    shards = info.get("shards", [])
    if not isinstance(shards, list) or not all(map(_is_shard, shards)):
        return "'shards' must be a list of {file, samples}"
    if info.get("samples") != len(ids) or (shards and sum(shard["samples"] for shard in shards) != len(ids)):
        return f"it speaks of another number of samples than ids.npy, which holds {len(ids)}"
    return ""


def _is_shard(value: object) -> bool:
    """A shard lies in the folder of the export, whatever its name says."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("file"), str)
        and Path(value["file"]).name == value["file"]
        and type(value.get("samples")) is int
        and value["samples"] > 0
    )


def in_containers(job: Job, form: str, export: Path) -> Job:
    """The job in the order of the containers of another export; ValueError if they do not fit it."""
    found, kept = _check_containers(job, form, export), job.ids
    there = np.isin(found, kept)
    if there.sum() < len(kept):
        missing = np.setdiff1d(kept, found)
        raise ValueError(f"{export} lacks {len(missing)} of the {len(kept)} samples, the first {missing[0]}")
    ids = found[there]
    order = np.argsort(kept)
    weights = None if job.weights is None else job.weights[order[np.searchsorted(kept, ids, sorter=order)]]
    return Job(job.store, job.split, ids, weights, job.label, job.progress)


def _check_containers(job: Job, form: str, path: Path) -> np.ndarray:
    """The ids of an export, int64 (n,); ValueError if its containers do not fit the job."""
    if form not in CONTAINERS:
        raise ValueError(f"--containers is for {', '.join(CONTAINERS)}, not {form}")
    info, ids = read_export(path)
    wanted = {"format": form, "split": job.split.name, "version": VERSION}
    for key, value in wanted.items():
        if info.get(key) != value:
            raise ValueError(f"{path} has the {key} {info.get(key)!r}, not {value!r}; name an export that fits")
    if info["store"]["fingerprint"] != job.store.fingerprint:
        raise ValueError(f"{path} was made of another store ({info['store']['path']}), not {job.store.path}")
    if "containers" in info:
        raise ValueError(f"{path} only links to containers; name the export that holds them: {info['containers']}")
    if job.label not in (None, info["label"]):
        raise ValueError(f"the containers in {path} have the {info['label']} as label, not the {job.label}")
    return ids
