"""Whether compacting a store pays: bytes to copy against bytes that are then not read.

A reader is told apart by how much it makes the storage read where it wants one sample. What has been read stays in
memory as far as it fits: if all of it does, it is read in the first epoch alone; if only a share of it does, this share
of all later reads is spared. Training visits samples in random order, before and after: compacting makes less of the
file be touched, it does not make the order sequential. All figures follow from the index; nothing is measured, nothing
of the payloads read.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunekd.store.format.beton import read_header
from prunekd.store.format.split import Split
from prunekd.store.jobs.compact import place

PAGE = 4096  # bytes that the kernel reads at least
READ_AHEAD = 128 << 10  # bytes that Linux reads around a touched page of a memory map, unless it is told otherwise
NETWORK = ("nfs", "cifs", "smb", "ceph", "lustre", "gpfs", "glusterfs", "beegfs", "fuse", "9p", "virtiofs", "afs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What a folder lies on.

    Attributes:
        kind: `solid state`, `spinning`, `network` or `unknown`.
        file_system: its type, such as ext4.
        read_ahead: bytes read around a touched page of a memory map.
    """

    kind: str
    file_system: str
    read_ahead: int


def storage_of(path: Path) -> Storage:
    """What the system says of the storage under `path`."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = [
        line.split(" - ")
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    ]
    system = next((after.split()[0] for before, after in mounts if before.split()[2] == number), "unknown")
    block = Path("/sys/dev/block") / number
    queue = next((q for q in (block / "queue", block.resolve().parent / "queue") if q.exists()), None)
    if queue is None:
        kind = "network" if system.startswith(NETWORK) else "unknown"
        return Storage(kind=kind, file_system=system, read_ahead=READ_AHEAD)
    spinning = (queue / "rotational").read_text(encoding="utf-8").strip() == "1"
    ahead = int((queue / "read_ahead_kb").read_text(encoding="utf-8")) << 10
    return Storage(kind="spinning" if spinning else "solid state", file_system=system, read_ahead=max(ahead, PAGE))


def available_memory() -> int:
    """Bytes that could hold files, as the system estimates it."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What reading the kept samples costs: bytes in the first epoch, and in each one after it."""

    first: int
    later: int

    def total(self, epochs: int) -> int:
        """Bytes in so many epochs."""
        return self.first + (epochs - 1) * self.later


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """One way of reading, from the store as it is and from the compacted one, and what making that costs (bytes)."""

    before: Reading
    after: Reading
    cost: int

    def saved(self, epochs: int) -> int:
        """Bytes less in so many epochs, the copying not counted."""
        return self.before.total(epochs) - self.after.total(epochs)

    @property
    def from_epochs(self) -> int | None:
        """The least number of epochs (of all runs together) in which more is saved than copied; None: never."""
        if self.saved(1) > self.cost:
            return 1
        each = self.before.later - self.after.later
        return 2 + (self.cost - self.saved(1)) // each if each > 0 else None


def touched(pointers: np.ndarray, sizes: np.ndarray, unit: int) -> tuple[int, int]:
    """Bytes in blocks of `unit` bytes that hold a part of the extents: each block once, and once per extent.

    Args:
        pointers, sizes: int64 (n,), extents that do not overlap, in any order.
    """
    order = np.argsort(pointers)
    first, last = pointers[order] // unit, (pointers[order] + sizes[order] - 1) // unit
    new = np.maximum(first, np.concatenate(([-1], last[:-1])) + 1)
    return int((last - new + 1).sum()) * unit, int((last - first + 1).sum()) * unit


def gains(split: Split, ids: np.ndarray, memory: int, read_ahead: int) -> dict[str, Gain]:
    """By way of reading, what compacting `split` to `ids` changes.

    Args:
        ids: int64 (k,), most valuable first.
        memory: bytes in which what was read stays.
        read_ahead: see Storage.
    """
    rows = split.rows(ids)
    pointers, sizes, page_size = split.pointers[rows], split.sizes[rows], read_header(split.path).page_size
    places = place(sizes, page_size)

    def reading(where: np.ndarray, unit: int, by_page: bool) -> Reading:
        once, each = touched(where, sizes, unit)
        if by_page:
            each = once  # the Loader reads a page, and then the samples in it
        absent = max(0.0, 1 - memory / once)
        return Reading(first=once + round((each - once) * absent), later=round(each * absent))

    copied = touched(pointers, sizes, PAGE)[0] + int(sizes.sum())
    nothing = Reading(first=0, later=0)
    found = {
        "exact extents (readers native, ffcv, dali)": (PAGE, False),
        f"memory map, up to {read_ahead >> 10} KiB around (FFCV's Loader, os_cache=True)": (read_ahead, False),
        f"pages of {page_size >> 20} MiB (FFCV's Loader, os_cache=False)": (page_size, True),
    }
    result = {
        name: Gain(before=reading(pointers, unit, by_page), after=reading(places, unit, by_page), cost=copied)
        for name, (unit, by_page) in found.items()
    }
    exact = next(iter(result.values()))
    result["exact extents, the new store on another storage"] = Gain(
        before=exact.before, after=nothing, cost=exact.before.first
    )
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderCost:
    """Bytes that one way of reading takes in all epochs, with and without compacting.

    Attributes:
        bytes_before, bytes_after: read from the store as it is, and from the compacted one.
        bytes_copied: read and written to make that.
        bytes_saved: before less after less copied.
        stays_in_memory: `before` and `after`: is everything read in the first epoch alone?
        pays: whether bytes_saved is above 0.
        pays_from_epochs: the least number of epochs in which it would be; None: never.
    """

    bytes_before: int
    bytes_after: int
    bytes_copied: int
    bytes_saved: int
    stays_in_memory: Mapping[str, bool]
    pays: bool
    pays_from_epochs: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionCost:
    """Whether compacting a store to some samples pays, and what that rests on.

    Attributes:
        kept, kept_bytes: the samples, and the bytes of their payloads.
        epochs: of all runs to come.
        memory: bytes in which what was read stays.
        storage, file_system: kind and type, see Storage.
        readers: by way of reading.
    """

    kept: int
    kept_bytes: int
    epochs: int
    memory: int
    storage: str
    file_system: str
    readers: Mapping[str, ReaderCost]


def compaction_cost(
    split: Split, ids: np.ndarray, epochs: int, memory: int | None = None, storage: Storage | None = None
) -> CompactionCost:
    """What `gains` finds for so many epochs.

    Args:
        ids: int64 (k,), most valuable first.
        memory: bytes in which what was read stays; None for what is available here.
        storage: None for what the split lies on.
    """
    memory = available_memory() if memory is None else memory
    storage = storage or storage_of(split.path)
    return CompactionCost(
        kept=len(ids),
        kept_bytes=int(split.sizes[split.rows(ids)].sum()),
        epochs=epochs,
        memory=memory,
        storage=storage.kind,
        file_system=storage.file_system,
        readers={
            name: ReaderCost(
                bytes_before=gain.before.total(epochs),
                bytes_after=gain.after.total(epochs),
                bytes_copied=gain.cost,
                bytes_saved=gain.saved(epochs) - gain.cost,
                stays_in_memory={"before": gain.before.later == 0, "after": gain.after.later == 0},
                pays=gain.saved(epochs) > gain.cost,
                pays_from_epochs=gain.from_epochs,
            )
            for name, gain in gains(split, ids, memory, storage.read_ahead).items()
        },
    )
