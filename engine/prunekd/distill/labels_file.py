"""The folder of a teacher's soft labels: NumPy arrays, and a JSON that says what they are.

    LABELS/
        labels.json        provenance: teacher, store, view settings, seed, views, temperature, top K
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

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunekd.common.closing import Closing
from prunekd.common.files import read_json, replacing, sync_folder, write_json

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
            ValueError: the earlier attempt was asked for other labels.
            OSError: they do not fit on the disk.
        """
        plan = self.folder / PLAN_FILE
        if plan.exists():
            different = first_difference(read_json(plan), self.plan)
            if different is not None:
                raise ValueError(
                    f"{self.folder} was begun with {different}; go on with the settings it was begun with, or remove it"
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
        """Write labels.json, give the folder its name, and return what labels.json holds."""
        info = self.plan | dict(facts)
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


def open_arrays(path: Path, info: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of finished soft labels by name, memory-mapped, read-only.

    Raises:
        ValueError: a file that is missing, cut off or of another shape; the message names it.
    """
    expected = layout_of(info) | {SAMPLE_IDS: (np.dtype(np.int64), (info["samples"],))}
    arrays = {}
    for name, (dtype, shape) in expected.items():
        file = path / f"{name}.npy"
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ValueError(f"{file} cannot be read: {error}; make the soft labels again") from None
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(
                f"{file} holds {array.dtype} {array.shape}, {LABELS_FILE} says {dtype} {shape}; make the labels again"
            )
        arrays[name] = array
    return arrays
