"""The folder of a teacher's soft labels: NumPy arrays, and a JSON that says what they are.

    LABELS/
        labels.json        provenance: teacher, store, view settings, seed, views, temperature, top K; and digests
        sample_ids.npy     int64 (n,), ascending
        logits.npy         float16 (views, n, K), the largest first; or (views, n, classes) where all were kept
        topk_ids.npy       int16 or int32 (views, n, K), their classes
        std.npy            float32 (views, n), unbiased std of all logits
        logsumexp.npy      float32 (views, n), logsumexp(z / temperature) of all logits

While it is being made it is called `.LABELS.partial` and holds plan.json (what was asked for) and one journal per
process, done-RANK.txt. A line `view start stop` stands in it only after the block's bytes have reached the disk, so a
kill at any moment loses nothing but the blocks that were under way. Processes write to ranges of their own, which a
network file system keeps apart, too.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunekd.common.arrays import load_array
from prunekd.common.closing import Closing
from prunekd.common.files import read_json, replacing, sync_folder, write_json

logger = logging.getLogger(__name__)

FORMAT = "prunekd-labels"
VERSION = 1
LABELS_FILE = "labels.json"
PLAN_FILE = "plan.json"
SAMPLE_IDS = "sample_ids"
INT16_CLASSES = 2**15

Block = tuple[int, int, int]  # view, start, stop: records [start, stop) of the samples in the order of their ids


def layout(
    views: int, samples: int, classes: int, topk: int | None
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Name -> dtype and shape of the arrays with one record per view and sample; topk None keeps all logits."""
    if topk is None:
        return {"logits": (np.dtype(np.float16), (views, samples, classes))}
    ids = np.dtype(np.int16 if classes <= INT16_CLASSES else np.int32)
    return {
        "logits": (np.dtype(np.float16), (views, samples, topk)),
        "topk_ids": (ids, (views, samples, topk)),
        "std": (np.dtype(np.float32), (views, samples)),
        "logsumexp": (np.dtype(np.float32), (views, samples)),
    }


def layout_of(info: Mapping[str, Any]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """`layout` of what labels.json or plan.json describes."""
    return layout(info["views"], info["samples"], info["classes"], info["topk"])


def first_difference(before: Any, now: Any, key: str = "") -> str | None:
    """Where two trees of plain values first differ, as `key = before, not now`; None if they are equal."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            found = first_difference(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
            if found is not None:
                return found
        return None
    return None if before == now else f"{key} = {before!r}, not {now!r}"


class LabelsWriter(Closing):
    """Soft labels in the making; every process has one, with a rank of its own.

    Call `begin` on one process, which holds the lock of `folder`, then `done` on each, then `write` on each inside its
    `with` block, then `publish` on one.

    Raises:
        ValueError: there are labels at `out` already.
    """

    def __init__(self, out: Path, plan: Mapping[str, Any], rank: int = 0) -> None:
        if out.exists():
            raise ValueError(f"{out} exists; soft labels are never overwritten: choose another --out or remove it")
        self.out = out
        self.plan = dict(plan)
        self.folder = out.with_name(f".{out.name}.partial")
        self._journal = self.folder / f"done-{rank}.txt"
        # descriptor, offset of the first record, bytes and dtype of a record
        self._files: dict[str, tuple[int, int, int, np.dtype[Any]]] = {}

    def begin(self, ids: np.ndarray) -> None:
        """Create the files, or go on with those of an earlier attempt.

        Raises:
            ValueError: the earlier attempt was asked for other labels, or for those of other samples.
            OSError: they do not fit on the disk.
        """
        plan = self.folder / PLAN_FILE
        if plan.exists():
            different = first_difference(read_json(plan), self.plan)
            if different is not None:
                raise ValueError(
                    f"{self.folder} was begun with {different}; go on with the settings it was begun with, or remove it"
                )
            if not np.array_equal(_load(self._path(SAMPLE_IDS)), ids):
                raise ValueError(
                    f"{self.folder} was begun with other samples under the same description; go on with those it was "
                    "begun with, or remove it"
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = sum(int(np.prod(shape)) * dtype.itemsize for dtype, shape in layout_of(self.plan).values())
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                f"the soft labels take {needed / 2**30:.1f} GiB and {self.folder.parent} has {free / 2**30:.1f} GiB "
                "free; keep fewer logits (--topk) or views, or choose another disk"
            )
        for name, (dtype, shape) in layout_of(self.plan).items():
            # a sparse file: its blocks are allocated as they are written
            np.lib.format.open_memmap(self._path(name), mode="w+", dtype=dtype, shape=shape)
        with replacing(self._path(SAMPLE_IDS)) as temporary, temporary.open("wb") as file:
            np.save(file, ids)
        write_json(plan, self.plan)  # last: without it the files are made anew

    def done(self) -> set[Block]:
        """Blocks that any process has written, in this attempt or an earlier one."""
        blocks: set[Block] = set()
        for journal in sorted(self.folder.glob("done-*.txt")):
            for line in journal.read_text(encoding="utf-8").split("\n")[
                :-1
            ]:  # a line without its end was cut off by a kill
                view, start, stop = map(int, line.split())
                blocks.add((view, start, stop))
        return blocks

    def write(self, block: Block, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a block's records to the disk, then note that it is there.

        Raises:
            OSError: the disk is full, for example; the blocks before stay.
        """
        view, start, stop = block
        if not self._files:
            self._open()
        for name, (descriptor, offset, record, dtype) in self._files.items():
            values = np.ascontiguousarray(arrays[name], dtype)
            assert len(values) == stop - start
            _write_all(descriptor, values, offset + (view * self.plan["samples"] + start) * record)
        for descriptor, *_ in self._files.values():
            os.fdatasync(descriptor)
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{view} {start} {stop}\n")
            journal.flush()
            os.fsync(journal.fileno())

    def close(self) -> None:
        """Close the files; `write` opens them again."""
        for descriptor, *_ in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def publish(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write labels.json with the digests of what is there, give the folder its name, and return what it holds."""
        arrays = open_arrays(self.folder, self.plan)
        digests = {
            SAMPLE_IDS: digest_of_ids(arrays[SAMPLE_IDS]),
            "views": [digest_of_view(arrays, view) for view in range(self.plan["views"])],
        }
        info = self.plan | dict(facts) | {"digests": digests}
        write_json(self.folder / LABELS_FILE, info)
        for leftover in (*self.folder.glob("done-*.txt"), self.folder / PLAN_FILE, self.folder / "lock"):
            leftover.unlink(missing_ok=True)
        sync_folder(self.folder)
        os.rename(self.folder, self.out)
        sync_folder(self.out.parent)
        return info

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _open(self) -> None:
        """Open the files, and cut off what a kill left of a line in this process's journal."""
        if self._journal.exists():
            os.truncate(self._journal, self._journal.read_bytes().rfind(b"\n") + 1)
        for name, (dtype, shape) in layout_of(self.plan).items():
            record = int(np.prod(shape[2:], dtype=np.int64)) * dtype.itemsize
            offset = np.load(self._path(name), mmap_mode="r").offset
            self._files[name] = os.open(self._path(name), os.O_WRONLY), offset, record, dtype


def _write_all(descriptor: int, values: np.ndarray, offset: int) -> None:
    data = values.reshape(-1).view(np.uint8).data
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def read_info(path: Path) -> dict[str, Any]:
    """What labels.json in the folder `path` says.

    Raises:
        ValueError: no such folder, labels not finished, or not ours.
    """
    if not (path / LABELS_FILE).exists():
        if path.with_name(f".{path.name}.partial").exists():
            raise ValueError(f"the soft labels {path} are not finished; give the `prunekd labels` command again")
        raise ValueError(
            f"{path} holds no {LABELS_FILE}; make soft labels with `prunekd labels STORE ... --out {path}`"
        )
    info = read_json(path / LABELS_FILE)
    if not isinstance(info, dict) or info.get("format") != FORMAT or info.get("version") != VERSION:
        raise ValueError(f"{path / LABELS_FILE} does not describe soft labels of version {VERSION}; make them again")
    return info


def digest_of_ids(ids: np.ndarray) -> str:
    """SHA-256 of sample ids int64 (n,), in hexadecimal."""
    return hashlib.sha256(ids.astype("<i8", copy=False).tobytes()).hexdigest()


def digest_of_view(arrays: Mapping[str, np.ndarray], view: int) -> str:
    """SHA-256 of the records of one view, in hexadecimal: one array after the other, by name."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        if name != SAMPLE_IDS:
            found.update(np.ascontiguousarray(arrays[name][view]).view(np.uint8).data)
    return found.hexdigest()


def check_view(path: Path, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray], view: int) -> None:
    """Check the records of one view: by their digest, or by what they hold where 0.1.0 wrote none.

    Raises:
        ValueError: records that are not what was written; logits that are not finite; classes that do not exist.
    """
    if "digests" in info:
        if digest_of_view(arrays, view) != info["digests"]["views"][view]:
            raise ValueError(
                f"the soft labels {path} are damaged: those of view {view} are not what their digest in {LABELS_FILE} "
                "says; make them again"
            )
        return
    classes = arrays.get("topk_ids")
    finite = all(np.isfinite(values[view]).all() for name, values in arrays.items() if values.dtype.kind == "f")
    if not finite or (classes is not None and not ((classes[view] >= 0) & (classes[view] < info["classes"])).all()):
        raise ValueError(
            f"the soft labels {path} are damaged: those of view {view} hold numbers that are not finite or classes "
            f"outside the {info['classes']} there are; make them again"
        )


def open_arrays(path: Path, info: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of finished soft labels by name, memory-mapped, read-only.

    The records are checked by `check_view` when they are first used.

    Raises:
        ValueError: a file that is missing, cut off or of another shape, or ids that are not what was written; the
            message names it.
    """
    expected = layout_of(info) | {SAMPLE_IDS: (np.dtype(np.int64), (info["samples"],))}
    arrays = {}
    for name, (dtype, shape) in expected.items():
        file = path / f"{name}.npy"
        array = _load(file)
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(
                f"{file} holds {array.dtype} {array.shape}, {LABELS_FILE} says {dtype} {shape}; make the labels again"
            )
        arrays[name] = array
    ids = arrays[SAMPLE_IDS]
    if "digests" not in info:
        logger.debug(f"{path} has no digests: prunekd 0.1.0 wrote it, and damage to its values may go unnoticed")
    elif digest_of_ids(ids) != info["digests"][SAMPLE_IDS]:
        raise ValueError(f"{path / SAMPLE_IDS}.npy is damaged: it is not what its digest says; make the labels again")
    if len(ids) and (ids[0] < 0 or (np.diff(ids) <= 0).any()):
        raise ValueError(f"{path / SAMPLE_IDS}.npy is damaged: its ids do not ascend from 0 on; make the labels again")
    return arrays


def _load(file: Path) -> np.ndarray:
    return load_array(file, "make the soft labels again")
