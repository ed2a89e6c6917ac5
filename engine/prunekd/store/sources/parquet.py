"""The source `parquet`: images in Parquet files as Hugging Face lays them out."""

import hashlib
import json
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prunekd.store.format.store import SourceDescription
from prunekd.store.sources.labels import number_labels
from prunekd.store.sources.layout import DEFAULT, Layout
from prunekd.store.sources.packed import stamp_files
from prunekd.store.sources.shards import by_split, find_shards
from prunekd.store.sources.source import UnreadableImage

_IMAGES, _LABELS = ("image", "img"), ("label", "labels", "fine_label")  # names preferred where there are several
_KEPT_BYTES = 256 << 20  # of row groups kept in memory for the threads that read from them
_MAX_GROUP_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """The rows of a split: their files, and where in the split each of their row groups starts, int64 (groups + 1,)."""

    files: tuple[Path, ...]
    groups: tuple[tuple[int, int], ...]
    starts: np.ndarray
    keys: Sequence[str]


@dataclass(slots=True)
class _Group:
    """The images of one row group, once they are read."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    images: pa.ChunkedArray | None = None


class ParquetImages:
    """One file, a folder of files or a pattern; splits by file or folder name, see `by_split`.

    The image column is a struct with `bytes` (the file) and `path`, or plain binary; the label column holds integers or
    strings. Which columns they are, and the names of the classes, is read from the metadata that the `datasets` library
    writes, else found by name and type. Ids follow files sorted by name and rows as they lie there: row groups can only
    be read whole, so any other order would read each many times over. The key of an image is its stored path where all
    paths of the split are there and differ, else its file and row. Paths are never followed.

    Raises:
        ValueError: no files, a damaged one, columns missing or ambiguous, or labels that do not fit.
    """

    kind = "parquet"

    def __init__(self, path: Path, layout: Layout = DEFAULT) -> None:
        self.path, self._layout = path, layout
        root, shards = find_shards(path, ".parquet")
        ignored: Counter[str] = Counter()
        files, self.notes = by_split(root, shards, ignored, layout)
        self.ignored = dict(ignored)
        self.splits: tuple[str, ...] = tuple(files)
        schema = _schema(files["train"][0])
        self._image, label, names = _columns(files["train"][0], schema)
        stated: dict[str, list[int | str]] = {}
        self._rows: dict[str, _Rows] = {}
        for split in files:
            self._rows[split], stated[split] = _list(files[split], root, self._image, label)
        self.classes, self._labels = number_labels(path, stated, names, layout.label_names)
        self._open_groups()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{split} {len(labels)}" for split, labels in self._labels.items())
        return f"ParquetImages({str(self.path)!r}, {len(self.classes)} classes, {sizes})"

    def __getstate__(self) -> dict[str, object]:
        hidden = ("_groups", "_lock")  # another process reads for itself
        return {name: value for name, value in self.__dict__.items() if name not in hidden}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open_groups()

    def keys(self, split: str) -> Sequence[str]:
        return self._rows[split].keys

    def labels(self, split: str) -> np.ndarray:
        return self._labels[split]

    def read(self, split: str, index: int) -> bytes:
        rows = self._rows[split]
        number = int(np.searchsorted(rows.starts, index, side="right")) - 1
        value = self._images(split, number)[index - int(rows.starts[number])].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise UnreadableImage("the row holds no bytes of an image")
        return data

    def stamp(self, split: str, start: int, stop: int) -> str:
        rows = self._rows[split]
        first, last = np.searchsorted(rows.starts, (start, stop - 1), side="right") - 1
        numbers = {file for file, _ in rows.groups[first : last + 1]}
        return stamp_files(rows.files[number] for number in sorted(numbers))

    def describe(self) -> SourceDescription:
        digest = hashlib.sha256("\0".join((self._image, *self.classes)).encode())
        for split in self.splits:
            rows = self._rows[split]
            digest.update("\0".join((f"\0{split}\0{len(rows.keys)}", *rows.keys)).encode(errors="surrogateescape"))
            digest.update(self._labels[split].astype("<i8").tobytes() + rows.starts.astype("<i8").tobytes())
        description: SourceDescription = {"kind": self.kind, "path": str(self.path), "listing": digest.hexdigest()}
        return description | {"layout": self._layout.says} if self._layout.says else description

    def _open_groups(self) -> None:
        self._groups: OrderedDict[tuple[str, int], _Group] = OrderedDict()
        self._lock = threading.Lock()

    def _images(self, split: str, number: int) -> pa.ChunkedArray:
        """The images of a row group; threads that need the same one wait for the one that reads it."""
        with self._lock:
            group = self._groups.setdefault((split, number), _Group())
            self._groups.move_to_end((split, number))
            while len(self._groups) > 2 and self._held() > _KEPT_BYTES:
                self._groups.popitem(last=False)
        with group.lock:
            if group.images is None:
                rows = self._rows[split]
                file, inner = rows.groups[number]
                group.images = _read_group(rows.files[file], inner, self._image)
            return group.images

    def _held(self) -> int:
        return sum(group.images.nbytes for group in self._groups.values() if group.images is not None)


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the storage's; Arrow's complaints about a file's content have no number
        raise ValueError(f"{path} is not a Parquet file ({error})") from None


def _columns(path: Path, schema: pa.Schema) -> tuple[str, str, list[str] | None]:
    """Names of the image and the label column, and class names if the metadata says them."""
    features = _features(schema)
    images = [f.name for f in schema if _holds_images(f.type)]
    images = [name for name in images if _is(features, name, "Image")] or images
    labels = [f.name for f in schema if pa.types.is_integer(f.type) or pa.types.is_string(f.type)]
    labels = [name for name in labels if _is(features, name, "ClassLabel")] or labels
    image, label = _choose(images, _IMAGES), _choose(labels, _LABELS)
    if image is None or label is None:
        what = "image" if image is None else "label"
        raise ValueError(f"{path} has no column that is clearly the {what}; it has {', '.join(schema.names)}")
    feature = features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    if names is not None and (not isinstance(names, list) or len({*map(str, names)}) < len(names)):
        raise ValueError(f"{path} says that the classes of {label} are {names!r}; they must be different names")
    return image, label, None if names is None else [str(name) for name in names]


def _features(schema: pa.Schema) -> dict[str, object]:
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is(features: dict[str, object], name: str, kind: str) -> bool:
    feature = features.get(name)
    return isinstance(feature, dict) and feature.get("_type") == kind


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(inner.name == "bytes" and _is_binary(inner.type) for inner in kind)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _choose(names: list[str], preferred: Sequence[str]) -> str | None:
    if len(names) == 1:
        return names[0]
    return next((name for name in preferred if name in names), None)


def _list(files: Sequence[Path], root: Path, image: str, label: str) -> tuple[_Rows, list[int | str]]:
    """The rows of a split and their labels as they are stated."""
    counts: list[int] = []
    groups: list[tuple[int, int]] = []
    labels: list[int | str] = []
    paths: list[str | None] = []
    for number, path in enumerate(files):
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    counts.append(file.metadata.row_group(group).num_rows)
                    groups.append((number, group))
                labels += file.read(columns=[label])[label].to_pylist()
                paths += _paths(file, image)
        except (pa.ArrowException, OSError, KeyError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{path} cannot be read ({error!r}); it must have the columns {image}, {label}") from None
    if not labels or None in labels:
        raise ValueError(f"{root} has {'a row without a label' if labels else 'no rows'} in {files[0].name} or later")
    keys = [path for path in paths if path]
    if len(set(keys)) < len(labels):
        keys = _numbered(files, root, groups, counts)
    starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return _Rows(files=tuple(files), groups=tuple(groups), starts=starts, keys=keys), labels


def _paths(file: pq.ParquetFile, image: str) -> list[str | None]:
    kind = file.schema_arrow.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
        return [None] * file.metadata.num_rows
    return [row and row["path"] for row in file.read(columns=[f"{image}.path"])[image].to_pylist()]


def _numbered(files: Sequence[Path], root: Path, groups: list[tuple[int, int]], counts: list[int]) -> list[str]:
    keys, row, before = [], 0, -1
    for (number, _), count in zip(groups, counts, strict=True):
        row = row if number == before else 0
        name = os.path.relpath(files[number], root)
        keys += [f"{name}/{k:07d}" for k in range(row, row + count)]
        row, before = row + count, number
    return keys


def _read_group(path: Path, group: int, image: str) -> pa.ChunkedArray:
    try:
        with pq.ParquetFile(path) as file:
            size = file.metadata.row_group(group).total_byte_size
            if size > _MAX_GROUP_BYTES:
                raise ValueError(
                    f"row group {group} of {path} has {size} bytes, more than {_MAX_GROUP_BYTES} at a time; write the "
                    "file anew with fewer rows per group"
                )
            names = [f"{image}.bytes"] if pa.types.is_struct(file.schema_arrow.field(image).type) else [image]
            return file.read_row_group(group, columns=names)[image]
    except pa.ArrowException as error:
        raise UnreadableImage(f"row group {group} of {path.name} is damaged ({error})") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnreadableImage(f"row group {group} of {path.name} is damaged ({error})") from error
