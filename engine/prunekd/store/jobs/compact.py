"""Copy the kept samples of a store into a new one, the most valuable first.

In the new file samples lie in the order of the ranking, so every smaller keep ratio of that ranking is a prefix of the
file: reading a subset is then sequential, and what is not kept lies on another part of the disk, or on none. Payloads
are copied as they are, with their checksums; nothing is decoded.

A place in the new file follows from the sizes of what lies before it. All places are therefore known at the start,
payloads can be copied in any order, and all an interrupted run has to know is how many ranks were done.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from prunekd.common.files import read_json, sync_file, write_json
from prunekd.common.lock import locked
from prunekd.common.version import __version__
from prunekd.store.format.beton import read_header
from prunekd.store.format.beton_writer import BetonWriter, Rows, first_pointer
from prunekd.store.format.index import (
    ROW_GROUP,
    SCHEMA,
    Fingerprint,
    column,
    index_path,
    read_index,
    slices,
    write_index,
)
from prunekd.store.format.store import STORE_FILE, STORE_VERSION, Split, Store, StoreInfo, open_store, partial_path
from prunekd.store.jobs.copier import Copier
from prunekd.store.jobs.journal import Journal, check_target, naming
from prunekd.store.jobs.subset_spec import SubsetSpec
from prunekd.store.jobs.verify import check_index

logger = logging.getLogger(__name__)

WINDOW = 256 << 20  # bytes between two points from which an interrupted run goes on
THREADS = 8  # requests that the storage gets at a time; one at a time is slow over a network
Progress = Callable[[int, int, int], None]


def compact(
    store: Store,
    ids: np.ndarray,
    target: str | Path,
    *,
    split: str = "train",
    ranking: Mapping[str, object] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Store:
    """Write a store that holds of `split` the samples `ids` alone, in this order, and all other splits whole.

    Ids, keys, labels and checksums stay. The new store's `lineage` names its parent's fingerprint, and with it scores,
    subsets and soft labels made for the parent are accepted for the new store: before copying, the parent's index is
    held against its fingerprint, so a sample with some id is the same sample, byte for byte, in both. A subset with a
    sample that was not copied is refused where the sample is looked up. Splits that stay whole are hard links to the
    parent's files where the file system allows it.

    A run that was interrupted goes on where it stopped; until the store is whole it lies in `.NAME.partial` beside the
    target. Memory: about 0.3 KB per sample of the parent, payloads pass through in pieces.

    Args:
        ids: int64 (k,), the most valuable first, each once.
        target: the folder to make.
        ranking: where the order comes from, as JSON has it; noted in the new store.json.
        overwrite: replace the store that is there.
        progress: called with (samples done, samples in all, bytes done); first with what an interrupted run had done.

    Raises:
        ValueError: the target exists, an id is not in the split or there twice, or the parent's index does not fit its
            fingerprint.
        OSError: it cannot be written; the message names the file and what to do.
        RuntimeError: another process is writing to the same target.
    """
    target = Path(target).absolute()
    if target == store.path.absolute():
        raise ValueError(f"{target} cannot be compacted onto itself; name another folder")
    check_target(target, overwrite)
    folder = partial_path(target)
    with naming(folder, "copied"), locked(folder, "compaction"):
        part = store.split(split)
        subset = SubsetSpec(
            split=split,
            ids=np.asarray(ids, dtype=np.int64),
            parent={"path": str(store.path.absolute()), "samples": store.whole(split)},
            lineage=(store.fingerprint, *store.lineage),
            ranking=ranking or {},
        )
        work = _Compaction(store, part, subset, Journal(folder), progress or _silent)
        work.run()
        work.journal.publish(target)
    return open_store(target)


def place(sizes: np.ndarray, page_size: int) -> np.ndarray:
    """File offsets, int64 (n,), at which `BetonWriter` puts payloads of these sizes, int64 (n,), one after the other.

    No payload straddles two pages, and none is larger than a page.
    """
    pointers = np.empty(len(sizes), dtype=np.int64)
    ends = np.cumsum(sizes)
    page, row = first_pointer(len(sizes), page_size), 0
    while row < len(sizes):
        before = int(ends[row - 1]) if row else 0
        stop = int(np.searchsorted(ends, before + page_size, side="right"))
        assert stop > row, (row, int(sizes[row]))
        pointers[row:stop] = page + ends[row:stop] - sizes[row:stop] - before
        page, row = page + page_size, stop
    return pointers


class _Compaction:
    def __init__(self, store: Store, split: Split, subset: SubsetSpec, journal: Journal, progress: Progress) -> None:
        self.store, self.split, self.subset, self.journal = store, split, subset, journal
        self.progress = progress
        self.ids = subset.ids
        if self.ids.ndim != 1 or not len(self.ids):
            raise ValueError(f"the samples to keep have the shape {self.ids.shape}; give at least one id, as (k,)")
        values, counts = np.unique(self.ids, return_counts=True)
        if len(values) < len(self.ids):
            raise ValueError(f"sample id {int(values[counts > 1][0])} is to be kept twice; name each sample once")
        self.rows = split.rows(self.ids)
        self.sizes = split.sizes[self.rows]
        self.page_size = read_header(split.path).page_size
        self.pointers = place(self.sizes, self.page_size)
        self.beton = journal.beton(split.name)
        self._done = journal.folder / "done.json"

    def run(self) -> None:
        """Fill the journal's `store` folder."""
        check_index(self.store)
        done = self._resume()
        end = int(self.pointers[-1] + self.sizes[-1])
        self._check_room(end - int(self.pointers[done]) if done < len(self.ids) else 0)
        fingerprint = self._index()
        with naming(self.beton, "copied"):
            with Copier(self.split.path, self.beton, end) as copier:
                self._copy(done, copier)
            with BetonWriter(self.beton, capacity=len(self.ids), page_size=self.page_size, cursor=end) as writer:
                writer.finish(self._tables())
        for name, other in self.store.splits.items():
            if name != self.split.name:
                _link(other.path, self.journal.beton(name))
        self._describe(fingerprint)

    def _resume(self) -> int:
        """How many ranks an interrupted run had copied; 0 if there is nothing to go on with."""
        info = os.stat(self.split.path)
        file = [info.st_size, info.st_mtime_ns]
        plan = {"compact": {"fingerprint": self.store.fingerprint, "file": file, **self.subset.plan()}}
        found = self.journal.plan()
        if found == plan and self._done.exists() and self.beton.exists():
            done = int(read_json(self._done))
            logger.info(f"resuming an interrupted compaction: {done} of {len(self.ids)} samples are done")
            return done
        if found is not None and found != plan:
            logger.info("starting over: the store, the samples to keep or what was made there has changed")
        self._done.unlink(missing_ok=True)
        self.journal.begin(plan)
        return 0

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.journal.folder).free
        if needed > free:
            raise OSError(
                f"{needed / 2**30:.1f} GiB are still to be copied and {self.journal.folder.parent} has "
                f"{free / 2**30:.1f} GiB free; keep fewer samples (--keep), or choose another disk"
            )

    def _copy(self, done: int, copier: Copier) -> None:
        """Copy the ranks from `done` on, window by window, each window in the order of the parent's file."""
        ends = np.cumsum(self.sizes)
        self.progress(done, len(self.ids), int(ends[done - 1]) if done else 0)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="prunekd-copy") as pool:
            while done < len(self.ids):
                before = int(ends[done - 1]) if done else 0
                stop = max(done + 1, int(np.searchsorted(ends, before + WINDOW, side="right")))
                ranks = np.arange(done, stop)
                ranks = ranks[np.argsort(self.split.pointers[self.rows[ranks]])]
                shares = [share for share in np.array_split(ranks, 4 * THREADS) if len(share)]
                for _ in pool.map(lambda share: self._copy_share(share, copier), shares):
                    pass
                copier.sync()
                write_json(self._done, stop)
                done = stop
                self.progress(done, len(self.ids), int(ends[done - 1]))

    def _copy_share(self, ranks: np.ndarray, copier: Copier) -> None:
        sources, places = self.split.pointers[self.rows[ranks]], self.pointers[ranks]
        for source, place_, size in zip(sources.tolist(), places.tolist(), self.sizes[ranks].tolist(), strict=True):
            copier.copy(source, place_, size)

    def _index(self) -> str:
        """Write the index of the compacted split; returns the new store's fingerprint."""
        fingerprint = Fingerprint()
        for name in sorted(self.store.splits):
            split = self.store.split(name)
            table = read_index(split.index_path)
            rows = self.rows if split is self.split else np.arange(len(split))
            fingerprint.begin(name)
            for part in slices(table, rows[np.argsort(column(table, "id")[rows])]):
                fingerprint.add(part)
            if split is self.split:
                self._write_index(table)
        return fingerprint.hexdigest()

    def _write_index(self, table: pa.Table) -> None:
        index, place_ = index_path(self.beton), SCHEMA.get_field_index("pointer")
        starts = range(0, len(self.ids), ROW_GROUP)
        with naming(index, "copied"):
            write_index(
                index,
                (
                    part.set_column(place_, "pointer", pa.array(self.pointers[start : start + ROW_GROUP]))
                    for start, part in zip(starts, slices(table, self.rows), strict=True)
                ),
            )
            sync_file(index)

    def _tables(self) -> Iterator[Rows]:
        split = self.split
        for start in range(0, len(self.ids), ROW_GROUP):
            part = slice(start, start + ROW_GROUP)
            rows = self.rows[part]
            yield Rows(
                ids=self.ids[part],
                labels=split.labels[rows],
                pointers=self.pointers[part],
                sizes=self.sizes[part],
                modes=split.modes[rows],
                widths=split.widths[rows],
                heights=split.heights[rows],
            )

    def _describe(self, fingerprint: str) -> None:
        store, kept = self.store, {"samples": len(self.ids), "bytes": int(self.sizes.sum())}
        info: StoreInfo = {
            "version": STORE_VERSION,
            "prunekd": __version__,
            "fingerprint": fingerprint,
            "classes": list(store.classes),
            "splits": {name: kept if name == self.split.name else counts for name, counts in store.counts.items()},
            "source": store.source,
            "settings": store.settings,
            "ignored": store.ignored,
            "quarantined": store.quarantined,
            "compacted": self.subset.describe(),
        }
        with naming(self.journal.store / STORE_FILE, "copied"):
            write_json(self.journal.store / STORE_FILE, info)


def _link(beton: Path, target: Path) -> None:
    """Let a `.beton` file and its index appear at `target` too: as hard links, or else as copies."""
    for source, link in ((beton, target), (index_path(beton), index_path(target))):
        link.unlink(missing_ok=True)
        with naming(link, "copied"):
            try:
                os.link(source, link)
            except OSError:  # another file system, or one without links; if it is something else, copying fails too
                shutil.copyfile(source, link)
                sync_file(link)


def _silent(*_: object) -> None:
    """Say nothing."""
