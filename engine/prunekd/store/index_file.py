"""The index beside a `.beton` file: one Parquet row per sample, in the row order of the file; and the fingerprint."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("key", pa.string()),
        ("label", pa.int64()),
        ("pointer", pa.int64()),
        ("size", pa.int64()),
        ("mode", pa.uint8()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("crc32", pa.uint32()),
    ]
)
ROW_GROUP = 1 << 16  # rows; fixed, so that the file does not depend on how the rows arrived


def write_index(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write the rows of `tables` (SCHEMA, in row order) group by group; returns their number.

    The bytes of the file depend on the rows alone, not on how they are cut into tables.
    """
    rows = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=["label", "mode"]) as writer:
        for group in _regroup(tables):
            writer.write_table(group, row_group_size=ROW_GROUP)
            rows += group.num_rows
    return rows


def read_columns(path: Path, columns: list[str]) -> pa.Table:
    """Some columns of an index.

    Raises:
        ValueError: the file is missing, is not Parquet or lacks a column; the message names it.
    """
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise ValueError(f"{path} is not the index of a store: it has no column {missing[0]!r}")
            return file.read(columns=columns)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; convert the dataset again") from None
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}); convert the dataset again") from None


class Fingerprint:
    """SHA-256 over id, key, label and crc32 of every sample of every split.

    Two stores have the same fingerprint if they hold the same samples with the same bytes, whatever the order of their
    files, their page sizes and the way in which they were written. Splits must be added in the order of their names and
    samples by ascending id.
    """

    def __init__(self) -> None:
        self._whole = hashlib.sha256(b"prunekd store 1\n")
        self._columns: list[hashlib._Hash] = []
        self._split: str | None = None
        self._count = 0
        self._last_id = -1

    def begin(self, split: str) -> None:
        """Begin the samples of a split."""
        assert self._split is None or self._split < split, (self._split, split)
        self._close()
        self._split = split
        self._columns = [hashlib.sha256() for _ in range(4)]

    def add(self, table: pa.Table) -> None:
        """Add rows with the columns id, key, label, crc32, ids ascending."""
        if table.num_rows == 0:
            return
        ids = column(table, "id")
        assert (np.diff(ids, prepend=self._last_id) > 0).all(), "ids must ascend"
        self._last_id = int(ids[-1])
        self._count += len(ids)
        keys = table["key"].to_pylist()
        values = (
            ids.astype("<i8").tobytes(),
            ("\0".join(keys) + "\0").encode(),
            column(table, "label").astype("<i8").tobytes(),
            column(table, "crc32").astype("<u4").tobytes(),
        )
        for digest, value in zip(self._columns, values, strict=True):
            digest.update(value)

    def hexdigest(self) -> str:
        """The fingerprint, 64 hexadecimal digits."""
        self._close()
        return self._whole.hexdigest()

    def _close(self) -> None:
        if self._columns:
            self._whole.update(f"{self._split} {self._count}\n".encode())
            for digest in self._columns:
                self._whole.update(digest.digest())
        self._columns, self._count, self._last_id = [], 0, -1


def column(table: pa.Table, name: str) -> np.ndarray:
    """A numeric column as a NumPy array (n,)."""
    return np.asarray(table[name].combine_chunks().to_numpy(zero_copy_only=False))


def _regroup(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of exactly ROW_GROUP rows, the last one shorter."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table.select(SCHEMA.names).cast(SCHEMA))
        count += table.num_rows
        while count >= ROW_GROUP:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, ROW_GROUP).combine_chunks()
            waiting, count = [whole.slice(ROW_GROUP)], count - ROW_GROUP
    if count:
        yield pa.concat_tables(waiting).combine_chunks()
