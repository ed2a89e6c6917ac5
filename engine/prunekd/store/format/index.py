"""The index beside a `.beton` file: one Parquet row per sample, in the row order of the file; and the fingerprint."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prunekd.common.arrow import naming_damage
from prunekd.store.format.beton import regular_size

KEY = "key"
REMEDY = "convert the dataset again"
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
    options = {"compression": "zstd", "use_dictionary": ["label", "mode"], "write_page_checksum": True}
    with pq.ParquetWriter(path, SCHEMA, **options) as writer:
        for group in _regroup(tables):
            writer.write_table(group, row_group_size=ROW_GROUP)
            rows += group.num_rows
    return rows


def index_path(beton: Path) -> Path:
    """The index of a `.beton` file."""
    return beton.with_suffix(".index.parquet")


def read_numbers(path: Path, count: int) -> dict[str, np.ndarray]:
    """All columns but the keys, each (count,) in the dtype of SCHEMA; read by the group, so that little else is held.

    Raises:
        ValueError: the file is missing, damaged, not an index, or one of another number of samples than `count`; the
            message names it and what to do.
    """
    with _opened(path) as file:
        if file.metadata.num_rows != count:
            raise pa.ArrowInvalid(f"{file.metadata.num_rows} rows in the index, {count} samples in the file")
        # Arrow's names of these types are NumPy's; its own to_pandas_dtype imports pandas in some versions (17 does)
        columns = {field.name: np.empty(count, str(field.type)) for field in SCHEMA if field.name != KEY}
        row = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=list(columns), use_threads=False)
            if row + table.num_rows > count or any(table[name].null_count for name in columns):
                raise pa.ArrowInvalid("more rows than it says, or rows without values")
            for name, values in columns.items():
                values[row : row + table.num_rows] = table[name].to_numpy()
            row += table.num_rows
            del table
            pa.default_memory_pool().release_unused()  # else Arrow keeps some 15 MB for the next time
        if row != count:
            raise pa.ArrowInvalid(f"{row} rows where it says {count}")
    return columns


def read_keys(path: Path, rows: np.ndarray | None = None) -> list[str]:
    """The keys of the given rows, int64 (k,), or of all; only the groups with these rows are read.

    Raises:
        ValueError: as `read_numbers`.
    """
    with _opened(path) as file:
        starts = np.cumsum([0, *(file.metadata.row_group(k).num_rows for k in range(file.num_row_groups))])
        wanted = np.arange(file.metadata.num_rows) if rows is None else np.asarray(rows, dtype=np.int64)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < starts[-1]:
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of {starts[-1]}")
        groups = np.searchsorted(starts, wanted, side="right") - 1
        keys = np.empty(len(wanted), dtype=object)
        for group in np.unique(groups):
            found = file.read_row_group(int(group), columns=[KEY], use_threads=False)[KEY]
            here = groups == group
            keys[here] = found.take(pa.array(wanted[here] - starts[group])).to_pylist()
    return keys.tolist()  # type: ignore[no-any-return]


def read_index(path: Path) -> pa.Table:
    """The whole index.

    Raises:
        ValueError: as `read_numbers`.
    """
    with _opened(path) as file:
        return file.read()


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """An index to read from; whatever Arrow finds wrong with it, in here too, is a ValueError naming the file."""
    regular_size(path)
    with naming_damage(path, REMEDY), pq.ParquetFile(path, page_checksum_verification=True) as file:
        if file.schema_arrow.remove_metadata() != SCHEMA:
            raise pa.ArrowInvalid(_difference(file.schema_arrow))
        yield file


def _difference(schema: pa.Schema) -> str:
    """How the columns of a file differ from SCHEMA."""
    for field in SCHEMA:
        if field.name not in schema.names:
            return f"it has no column {field.name!r}"
        found = schema.field(field.name).type
        if found != field.type:
            return f"its column {field.name!r} is {found}, not {field.type}"
    return f"its columns are {', '.join(schema.names)}, not {', '.join(SCHEMA.names)}"


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


def slices(table: pa.Table, rows: np.ndarray) -> Iterator[pa.Table]:
    """The rows int64 (n,) of the table in tables of ROW_GROUP rows."""
    for start in range(0, len(rows), ROW_GROUP):
        yield table.take(rows[start : start + ROW_GROUP])


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
