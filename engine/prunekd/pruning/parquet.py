"""Parquet tables with a JSON description in their schema, and the check that they belong to the store in hand."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prunekd.common.arrow import naming_damage
from prunekd.common.files import replacing
from prunekd.store import Store

logger = logging.getLogger(__name__)

KEY = b"prunekd"
DIGEST = "digest"


class StoreIdentity(TypedDict):
    """A store, as files name it."""

    path: str
    classes: int


class Origin(TypedDict):
    """What scores and subsets record of the store they are made for."""

    split: str
    fingerprint: str
    store: StoreIdentity


def write_table(path: Path, columns: Mapping[str, np.ndarray], description: Mapping[str, object]) -> None:
    """Write `columns` with `description` as JSON under the schema's key `prunekd`, whole or not at all.

    The description also gets a `digest` of itself and of the columns, which `read_table` checks.
    """
    described = {**description, DIGEST: file_digest(columns, description)}
    metadata = {KEY: json.dumps(described, allow_nan=False).encode()}
    table = pa.table({name: pa.array(values) for name, values in columns.items()}).replace_schema_metadata(metadata)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def columns_digest(columns: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the names, dtypes and values of columns, in hexadecimal; their order does not matter."""
    found = hashlib.sha256()
    for name in sorted(columns):
        values = np.ascontiguousarray(columns[name])
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        found.update(f"{name} {values.dtype.str} {values.shape} ".encode())
        found.update(values.view(np.uint8).data if values.size else b"")
    return found.hexdigest()


def file_digest(columns: Mapping[str, np.ndarray], description: Mapping[str, object]) -> str:
    """SHA-256 of all that a file says, in hexadecimal."""
    text = json.dumps(dict(description), sort_keys=True)
    return hashlib.sha256(f"{text} {columns_digest(columns)}".encode()).hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """The JSON description of a file that `write_table` wrote, read from the schema alone.

    Raises:
        ValueError: the file is missing, not Parquet, or has no such description.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a Parquet file")
    with naming_damage(path, "make it again"):
        metadata = pq.read_schema(path).metadata or {}
    try:
        description = json.loads(metadata[KEY])
    except KeyError:
        raise ValueError(f"{path} is a Parquet file that prunekd did not write") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has a damaged prunekd description ({error})") from None
    if not isinstance(description, dict) or "format" not in description:
        raise ValueError(f"{path} has a damaged prunekd description")
    return description


def read_table(
    path: Path, kind: str, version: int, remedy: str, needed: Callable[[Mapping[str, Any]], Iterable[str]]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Columns and description of a file of the format `kind`; the digest is checked and left out.

    Args:
        remedy: ends error messages.
        needed: the columns that a file with this description has.

    Raises:
        ValueError: as `describe`; the file is of another kind or version, lacks a column, has a missing value or is not
            what was written.
    """
    description = describe(path)
    if description["format"] != kind:
        raise ValueError(f"{path} is a {description['format']} file, not a {kind} file; {remedy}")
    if description.get("version") != version:
        raise ValueError(
            f"{path} has version {description.get('version')} of the {kind} format, this prunekd reads {version}"
        )
    with naming_damage(path, remedy):
        table = pq.read_table(path, page_checksum_verification=True)
    lacking = [name for name in needed(description) if name not in table.column_names]
    if lacking:
        raise ValueError(f"{path} lacks the columns {', '.join(lacking)}; {remedy}")
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    digest = description.pop(DIGEST, None)
    if digest is None:
        logger.debug(f"{path} has no digest: prunekd 0.1.0 wrote it, and damage to its values may go unnoticed")
    elif digest != file_digest(columns, description):
        raise ValueError(f"{path} is damaged or was edited: its content is not what its digest says; {remedy}")
    return columns, description


def check_column(path: Path, name: str, values: np.ndarray, kinds: str, remedy: str) -> None:
    """Raise ValueError for a column of another kind of dtype than `kinds` (NumPy's letters) or with missing values."""
    if values.dtype.kind not in kinds:  # missing integers turn a column into floats
        raise ValueError(f"column {name} of {path} holds {values.dtype} or missing values; {remedy}")


def check_ids(path: Path, ids: np.ndarray, remedy: str) -> None:
    """Raise ValueError unless these are sample ids: integers from 0 on, each once."""
    check_column(path, "id", ids, "iu", remedy)
    values, counts = np.unique(ids, return_counts=True)
    if len(values) and values[0] < 0:
        raise ValueError(f"{path} names the sample id {values[0]}, and ids count from 0; {remedy}")
    if len(values) < len(ids):
        raise ValueError(f"{path} names the samples {some(values[counts > 1])} more than once; {remedy}")


def check_store(what: str, description: Mapping[str, object], store: Store, remedy: str) -> None:
    """Make sure that the file described was made for `store`, or for one of which `store` holds a part.

    Raises:
        ValueError: the fingerprints differ; the message says which store each belongs to, and the `remedy`.
    """
    if description.get("fingerprint") in (store.fingerprint, *store.lineage):
        return
    raise ValueError(
        f"{what} was made for {_named(description)}, but is used with "
        f"{_named({'fingerprint': store.fingerprint, 'store': _identity(store)})}; {remedy}"
    )


def check_split(what: str, description: Mapping[str, object], split: str, remedy: str) -> None:
    """Raise ValueError if a file belongs to another split than `split`.

    Args:
        what: begins the message, as in "these scores are".
        remedy: ends it.
    """
    if description.get("split", split) != split:
        raise ValueError(f"{what} of the split {description['split']!r}, not {split!r}; {remedy}")


def check_same_store(one: str, its: Mapping[str, object], other: str, others: Mapping[str, object]) -> None:
    """Raise ValueError if two files were made for different stores or splits; the message names both."""
    if its.get("fingerprint") != others.get("fingerprint"):
        raise ValueError(f"{one} was made for {_named(its)}, but {other} for {_named(others)}; use files of one store")
    splits = its.get("split"), others.get("split")
    if None not in splits and splits[0] != splits[1]:
        raise ValueError(f"{one} is of the split {splits[0]!r}, but {other} of {splits[1]!r}; use files of one split")


def made_for(store: Store, split: str) -> Origin:
    """What scores and subsets record of the store they are made for."""
    return {"split": split, "fingerprint": store.fingerprint, "store": _identity(store)}


def some(ids: Iterable[int], limit: int = 5) -> str:
    """The first few ids, for an error message: `3, 17, 40 and 9 more`."""
    listed = [int(i) for i in ids]
    text = ", ".join(str(i) for i in listed[:limit])
    return text if len(listed) <= limit else f"{text} and {len(listed) - limit} more"


def _identity(store: Store) -> StoreIdentity:
    return {"path": str(store.path.absolute()), "classes": len(store.classes)}


def _named(description: Mapping[str, object]) -> str:
    fingerprint = f"fingerprint {str(description.get('fingerprint'))[:12]}"
    store = description.get("store")
    if not isinstance(store, dict):
        return f"a store with {fingerprint}"
    return f"{store['path']} ({store['classes']} classes, {fingerprint})"
