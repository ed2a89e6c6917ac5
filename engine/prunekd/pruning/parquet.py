"""Parquet tables with a JSON description in their schema, and the check that they belong to the store in hand."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prunekd.common.arrow import naming_damage
from prunekd.common.files import replacing
from prunekd.store import Store

KEY = b"prunekd"


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
    """Write `columns` with `description` as JSON under the schema's key `prunekd`, whole or not at all."""
    metadata = {KEY: json.dumps(dict(description), allow_nan=False).encode()}
    table = pa.table({name: pa.array(values) for name, values in columns.items()}).replace_schema_metadata(metadata)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


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


def read_table(path: Path, kind: str, version: int, remedy: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Columns and description of a file of the format `kind`.

    Raises:
        ValueError: as `describe`, or the file is of another kind or a later version; `remedy` ends the message.
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
    return {name: table.column(name).to_numpy() for name in table.column_names}, description


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


def check_same_store(one: str, its: Mapping[str, object], other: str, others: Mapping[str, object]) -> None:
    """Raise ValueError if two files were made for different stores; the message names both."""
    if its.get("fingerprint") != others.get("fingerprint"):
        raise ValueError(f"{one} was made for {_named(its)}, but {other} for {_named(others)}; use files of one store")


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
