"""Convert a source into a store: in parallel, in order, resumable, whole or not at all.

Threads read, check and encode; this thread places the payloads, strictly in order: that of the source, or that of the
samples to keep. Where a byte of the store lies therefore depends on the source and the settings alone: not on the
number of threads, nor on interruptions.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from prunekd.common.files import sync_file, write_json
from prunekd.common.lock import locked
from prunekd.common.machine import available_cores
from prunekd.common.version import __version__
from prunekd.store.format.beton_writer import BetonWriter, Rows
from prunekd.store.format.index import SCHEMA, Fingerprint, column, write_index
from prunekd.store.format.store import STORE_FILE, STORE_VERSION, Store, StoreInfo, index_path, open_store, partial_path
from prunekd.store.jobs.journal import HOW, Journal, Part, check_target, naming
from prunekd.store.jobs.outcomes import Outcome, cannot_read, outcomes, thread_pool
from prunekd.store.jobs.quarantine import check_quarantined
from prunekd.store.jobs.settings import ConvertSettings
from prunekd.store.jobs.subset_spec import SubsetSpec
from prunekd.store.sources.source import Source, stamp_rows

logger = logging.getLogger(__name__)

__all__ = ["ConvertSettings", "Progress", "SubsetSpec", "convert"]

Progress = Callable[[int, int, int], None]


def convert(
    source: Source,
    target: str | Path,
    settings: ConvertSettings | None = None,
    progress: Progress | None = None,
    subset: SubsetSpec | None = None,
) -> Store:
    """Write a store; an unfinished conversion to the same target goes on where it stopped.

    Unreadable inputs are listed with their reasons in the store. The folder appears when it is whole; until then the
    work lies beside it in `.NAME.partial`, whatever ended the conversion.

    Args:
        source: from `open_source`.
        target: the folder to make.
        settings: see ConvertSettings.
        progress: called with (inputs done, inputs in all, inputs quarantined) now and then, first with what an
            interrupted conversion had done.
        subset: the samples to keep of one split; None for all.

    Raises:
        ValueError: the target exists and is not to be replaced, samples to keep are not there, or not one input of a
            split could be read, or more inputs are unreadable than `max_quarantined` allows.
        OSError: it cannot be written (disk full), or the storage of the source failed; the message names the file and
            what to do. What was converted is kept.
        RuntimeError: another process is converting to the same target.
    """
    target, settings = Path(target).absolute(), settings or ConvertSettings()
    check_target(target, settings.overwrite)
    if subset is not None:
        subset.check(source)
    folder = partial_path(target)
    with naming(folder), locked(folder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an input stands in its reason
        conversion = _Conversion(source, Journal(folder), settings, progress or _silent, subset)
        conversion.run()
        conversion.journal.publish(target)
    return open_store(target)


class _Conversion:
    def __init__(
        self,
        source: Source,
        journal: Journal,
        settings: ConvertSettings,
        progress: Progress,
        subset: SubsetSpec | None,
    ) -> None:
        self.source, self.journal, self.settings = source, journal, settings
        self.progress = progress
        self.subset = subset
        self.ids = {split: np.arange(len(source.labels(split))) for split in source.splits}
        if subset is not None:
            self.ids[subset.split] = subset.ids.astype(np.int64)
        self.total = sum(map(len, self.ids.values()))
        self.done = self.quarantined = self.written = 0

    def run(self) -> None:
        """Fill the journal's `store` folder."""
        parts = self._resume()
        self.progress(self.done, self.total, self.quarantined)
        with thread_pool(self.settings.workers or available_cores()) as pool:
            for split in self.source.splits:
                self._write_split(split, parts[split], pool)
        self._finish(parts)

    def _resume(self) -> dict[str, list[Part]]:
        """The parts already done, by split; none if there is nothing to go on with."""
        plan = {
            "journal": 1,
            "settings": self.settings.shaping(),
            "source": self.source.describe(),
            "samples to keep": self.subset and self.subset.plan(),
        }
        parts: dict[str, list[Part]] = {split: [] for split in self.source.splits}
        found = self.journal.plan()
        if found is not None:
            changed = [name for name in plan if found.get(name) != plan[name]]
            if not changed:
                parts = {split: self.journal.parts(split) for split in parts}
                changed = self._changed_inputs(parts)
            if not changed:
                self.written = sum(part.bytes for done in parts.values() for part in done)
                self.done = sum(part.stop - part.start for done in parts.values() for part in done)
                self.quarantined = sum(len(part.quarantined) for done in parts.values() for part in done)
                logger.info(f"resuming an interrupted conversion: {self.done} of {self.total} inputs are done")
                return parts
            logger.info(f"starting over: the {' and the '.join(changed)} changed since the interrupted conversion")
        self.journal.begin(plan)
        return {split: [] for split in parts}

    def _changed_inputs(self, parts: dict[str, list[Part]]) -> list[str]:
        for split, done in parts.items():
            if any(self._stamp(split, part.start, part.stop) != part.stamp for part in done):
                return [f"input files of {split}"]
            beton = self.journal.beton(split)
            if done and (not beton.exists() or beton.stat().st_size < done[-1].cursor):
                return [f"unfinished file of {split}"]
        return []

    def _stamp(self, split: str, start: int, stop: int) -> str:
        try:
            return stamp_rows(self.source, split, self.ids[split][start:stop])
        except OSError as error:
            raise cannot_read(f"the inputs {start} to {stop - 1} of {split}", error) from error

    def _write_split(self, split: str, parts: list[Part], pool: ThreadPoolExecutor) -> None:
        """Convert what `parts` does not cover yet; appends to it."""
        total = len(self.ids[split])
        start, cursor = (parts[-1].stop, parts[-1].cursor) if parts else (0, None)
        beton = self.journal.beton(split)
        with (
            naming(beton, needed=lambda: self._bytes_left(total - start)),
            BetonWriter(beton, capacity=total, page_size=self.settings.page_size, cursor=cursor) as writer,
            ThreadPoolExecutor(1, "convert-commit") as committer,  # the disk takes a chunk while the next one is made
        ):
            found = [one for part in parts for one in part.quarantined]
            check_quarantined(split, found, len(self.ids[split]), self.settings)
            stream = outcomes(self.source, split, self.ids[split][start:], self.settings, pool)
            committed: Future[None] | None = None
            while start < total:
                stop = min(start + self.settings.chunk_size, total)
                table, part = self._write_chunk(split, start, stop, stream, writer, found)
                if committed is not None:
                    committed.result()
                committed = committer.submit(self._commit, writer, split, len(parts), table, part)
                parts.append(part)
                start = stop
            if committed is not None:
                committed.result()

    def _bytes_left(self, inputs: int) -> int:
        """An estimate of the bytes that so many inputs take, from those that were read; 0 if there are none."""
        return inputs * self.written // self.done if self.done else 0

    def _commit(self, writer: BetonWriter, split: str, number: int, table: pa.Table, part: Part) -> None:
        writer.sync()
        self.journal.add(split, number, table, part)

    def _write_chunk(
        self,
        split: str,
        start: int,
        stop: int,
        stream: Iterator[Outcome],
        writer: BetonWriter,
        found: list[dict[str, str]],
    ) -> tuple[pa.Table, Part]:
        """Write the inputs start..stop-1; adds those that are unreadable to `found`, the ones before them."""
        rows: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
        how = dict.fromkeys(HOW, 0)
        before = len(found)
        for _ in range(start, stop):
            outcome = next(stream)
            if outcome.sample is None:
                key = outcome.key.encode(errors="backslashreplace").decode()
                found.append({"split": split, "key": key, "reason": outcome.reason})
                self.quarantined += 1
                check_quarantined(split, found, len(self.ids[split]), self.settings)
            else:
                sample = outcome.sample
                self.written += len(sample.payload)
                values = (
                    *(outcome.id, outcome.key, outcome.label, writer.append(sample.payload), len(sample.payload)),
                    *(sample.mode, sample.width, sample.height, outcome.checksum),
                )
                for name, value in zip(rows, values, strict=True):
                    rows[name].append(value)
                how[sample.how] += 1
            self.done += 1
            self.progress(self.done, self.total, self.quarantined)
        table = pa.table(rows, schema=SCHEMA)
        part = Part(
            start=start,
            stop=stop,
            cursor=writer.cursor,
            rows=table.num_rows,
            bytes=int(column(table, "size").sum()),
            how=how,
            quarantined=found[before:],
            stamp=self._stamp(split, start, stop),
        )
        return table, part

    def _finish(self, parts: dict[str, list[Part]]) -> None:
        """Tables, headers, indices and `store.json`, from the parts alone; can be repeated."""
        fingerprint = Fingerprint()
        for split in sorted(parts):
            done = parts[split]
            if not any(part.rows for part in done):
                reason = done[0].quarantined[0]["reason"]
                raise ValueError(f"not one of the {done[-1].stop} images of {split} can be read (the first: {reason})")
            self._finish_split(split, done, fingerprint)
        info: StoreInfo = {
            "version": STORE_VERSION,
            "prunekd": __version__,
            "fingerprint": fingerprint.hexdigest(),
            "classes": list(self.source.classes),
            "splits": {split: _counts(parts[split]) for split in self.source.splits},
            "source": self.source.describe(),
            "settings": self.settings.shaping(),
            "ignored": self.source.ignored,
            "quarantined": [
                entry for split in self.source.splits for part in parts[split] for entry in part.quarantined
            ],
        }
        if self.subset is not None:
            info["compacted"] = self.subset.describe()
        with naming(self.journal.store / STORE_FILE):
            write_json(self.journal.store / STORE_FILE, info)

    def _finish_split(self, split: str, done: list[Part], fingerprint: Fingerprint) -> None:
        beton = self.journal.beton(split)
        index = index_path(beton)
        fingerprint.begin(split)
        for table in self._by_id(split, len(done)):
            fingerprint.add(table)
        with naming(index):
            write_index(index, self.journal.tables(split, len(done)))
            sync_file(index)
        capacity = len(self.ids[split])
        with (
            naming(beton),
            BetonWriter(beton, capacity=capacity, page_size=self.settings.page_size, cursor=done[-1].cursor) as writer,
        ):
            writer.finish(_rows(table) for table in self.journal.tables(split, len(done)))

    def _by_id(self, split: str, count: int) -> Iterator[pa.Table]:
        """The index rows by ascending id; unless they lie so, all are held in memory, without their places."""
        tables = self.journal.tables(split, count)
        if (np.diff(self.ids[split]) > 0).all():
            yield from tables
        else:
            whole = pa.concat_tables(table.select(["id", "key", "label", "crc32"]) for table in tables)
            yield whole.take(np.argsort(column(whole, "id")))


def _rows(table: pa.Table) -> Rows:
    return Rows(
        ids=column(table, "id"),
        labels=column(table, "label"),
        pointers=column(table, "pointer"),
        sizes=column(table, "size"),
        modes=column(table, "mode"),
        widths=column(table, "width"),
        heights=column(table, "height"),
    )


def _counts(parts: list[Part]) -> dict[str, int]:
    return {
        "samples": sum(part.rows for part in parts),
        "bytes": sum(part.bytes for part in parts),
        **{name: sum(part.how[name] for part in parts) for name in HOW},
        "quarantined": sum(len(part.quarantined) for part in parts),
    }


def _silent(*_: object) -> None:
    """Say nothing."""
