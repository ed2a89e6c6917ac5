"""The folder of an unfinished conversion: what was asked for, and every chunk that is done.

    .NAME.partial/
        plan.json       the source and the settings; another plan means starting over
        lock            held by the running conversion
        parts/SPLIT-00000000.parquet   the index rows of one chunk; the schema's metadata says what else came of it
        store/          what becomes the store: SPLIT.beton, SPLIT.index.parquet, store.json

A part appears, by rename, only after the payloads it speaks of have reached the disk. A conversion that was killed goes
on after its last part.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prunekd.common.files import replacing, sync_folder, write_json
from prunekd.store.format.index import SCHEMA
from prunekd.store.format.store import STORE_FILE
from prunekd.store.jobs.room import room_left

_INFO = b"prunekd"
HOW = ("verbatim", "encoded", "raw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One finished chunk of a split.

    Attributes:
        start, stop: the inputs it covers.
        cursor: where the next payload goes in the `.beton` file.
        rows: samples written.
        bytes: of their payloads.
        how: how many samples became what, by HOW.
        quarantined: one {split, key, reason} per unreadable input.
        stamp: `Source.stamp` of its inputs.
    """

    start: int
    stop: int
    cursor: int
    rows: int
    bytes: int
    how: dict[str, int]
    quarantined: list[dict[str, str]]
    stamp: str


class Journal:
    """Reads and writes the folder of an unfinished conversion; the caller holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self._parts = folder / "parts"
        self._plan = folder / "plan.json"

    def begin(self, plan: Mapping[str, object]) -> None:
        """Empty the folder and note the plan."""
        for path in (self._parts, self.store):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        write_json(self._plan, plan)

    def plan(self) -> dict[str, object] | None:
        """The plan of the unfinished conversion, None if there is none that can be read."""
        try:
            plan = json.loads(self._plan.read_text(encoding="utf-8"))
        except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
            return None
        return plan if isinstance(plan, dict) else None

    def beton(self, split: str) -> Path:
        """The `.beton` file of a split."""
        return self.store / f"{split}.beton"

    def add(self, split: str, number: int, table: pa.Table, part: Part) -> None:
        """Note a chunk whose payloads are on the disk."""
        info = {name: getattr(part, name) for name in Part.__slots__}
        labelled = table.replace_schema_metadata({_INFO: json.dumps(info).encode()})
        with replacing(self._path(split, number)) as temporary:
            pq.write_table(labelled, temporary)

    def parts(self, split: str) -> list[Part]:
        """The finished chunks of a split in order, up to the first gap; what lies beyond is removed."""
        parts: list[Part] = []
        while (part := self._read(split, len(parts))) is not None and part.start == (parts[-1].stop if parts else 0):
            parts.append(part)
        for path in self._parts.glob(f"{split}-*.parquet"):
            if path.name >= self._path(split, len(parts)).name:
                path.unlink()
        return parts

    def tables(self, split: str, count: int) -> Iterator[pa.Table]:
        """The rows of the first `count` chunks, one table at a time."""
        for number in range(count):
            yield pq.read_table(self._path(split, number)).replace_schema_metadata(None)

    def publish(self, target: Path) -> None:
        """Make the finished store appear at `target`, in place of the one that is there, and remove this folder."""
        sync_folder(self.store)
        replaced = self.folder / "replaced"
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            os.rename(target, replaced)
        os.rename(self.store, target)
        sync_folder(target.parent)
        shutil.rmtree(self.folder)

    def _path(self, split: str, number: int) -> Path:
        return self._parts / f"{split}-{number:08d}.parquet"

    def _read(self, split: str, number: int) -> Part | None:
        path = self._path(split, number)
        if not path.exists():
            return None
        try:
            schema = pq.read_schema(path)
            info = json.loads(schema.metadata[_INFO])
            return Part(**info) if schema.names == SCHEMA.names else None
        except (pa.ArrowInvalid, TypeError, KeyError, json.JSONDecodeError):
            return None  # the disk lost it after all: its inputs are converted again


@contextmanager
def naming(path: Path, done: str = "converted", needed: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Give a system error the name of the file and what to do about it.

    Args:
        path: of the file that is written, where the error does not name one.
        done: says what has been done so far.
        needed: estimates how many more bytes are needed, for a full disk; 0 if that is not known.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise  # named already
        remedy = "make room, then" if error.errno in (ENOSPC, EDQUOT, EFBIG) else "mend that, then"
        file, room = Path(error.filename if isinstance(error.filename, str) else path), ""
        if error.errno == ENOSPC:
            room = f" ({room_left(file, needed())})"
        raise OSError(
            f"cannot write {file}: {error.strerror or error}{room}; what is {done} so far is kept: {remedy} "
            "run the same command again to go on"
        ) from error


def check_target(target: Path, overwrite: bool) -> None:
    """Raise ValueError unless a store may be made at `target`: nothing is there, or a store that may be replaced."""
    if not target.name:
        raise ValueError(f"{target} cannot be a store; name a folder to make")
    if not target.exists():
        return
    if not overwrite:
        raise ValueError(f"{target} exists; choose another name or pass --overwrite to replace it")
    if not (target / STORE_FILE).is_file():
        raise ValueError(f"{target} is not a store, so --overwrite does not replace it; choose another name")
