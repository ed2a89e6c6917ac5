"""Files that are either whole or absent: write beside the target, fsync, rename."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it is fsynced and renamed to `path`.

    On any error the temporary file is removed and `path` keeps what it held. Readers therefore see the old
    content or the new, never a part.

    Raises:
        OSError: the disk is full or the folder not writable (the message names the file).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync_file(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_file(path: Path) -> None:
    """Flush the file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries (a rename is durable only after this)."""
    sync_file(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n", encoding="utf-8")


Kind = type | tuple[type, ...]
_KIND_NAMES: dict[type, str] = {
    dict: "an object", list: "a list", str: "a string", int: "an integer", float: "a number", bool: "true or false",
    type(None): "null",
}  # fmt: skip


def read_json(path: Path, required: Mapping[str, Kind] | None = None) -> Any:
    """Read a JSON file.

    Args:
        required: keys of the object that the file must hold, each with the type of its value, or several; float takes
            integers, too. None takes any JSON.

    Raises:
        ValueError: the file is missing, not JSON in UTF-8, or lacks a key or has another kind of value there; the
            message names the file.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:  # bytes that are no text, no JSON, numbers too long, lists too deep
        raise ValueError(f"{path} is not valid JSON ({error})") from None
    if required is not None:
        require_keys(value, required, str(path))
    return value


def require_keys(value: Any, required: Mapping[str, Kind], where: str) -> None:
    """Raise ValueError unless `value`, found at `where`, is an object with these keys and kinds of values."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is damaged: it holds {value!r:.60}; it must be a JSON object")
    for key, kind in required.items():
        if key not in value:
            raise ValueError(f"{where} is damaged: {key} is missing")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        found = value[key]
        fits = isinstance(found, kinds) or (float in kinds and isinstance(found, int))
        if not fits or (isinstance(found, bool) and bool not in kinds):
            names = " or ".join(_KIND_NAMES[item] for item in kinds)
            raise ValueError(f"{where} is damaged: {key} is {found!r:.60}; it must be {names}")


def read_records(path: Path, required: Mapping[str, Kind]) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the lines of a file of JSON objects, one a line, as bytes with their ends and as values.

    The last line of a program that was killed while writing it, and other damaged lines, are left out.

    Args:
        required: as for `read_json`, of every line.
    """
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            record = json.loads(line)
            require_keys(record, required, str(path))
        except (ValueError, RecursionError):
            continue
        if line.endswith(b"\n"):
            yield line, record


def read_text(path: Path, what: str) -> str:
    """Read a text file that a user names, called `what` in messages.

    Raises:
        ValueError: it does not exist, is no regular file (a pipe would be waited for), or is not text in UTF-8.
    """
    if not path.exists():
        raise ValueError(f"{what} {path} does not exist")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ValueError(f"{what} {path} is {kind}; give a regular file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} {path} is not text in UTF-8 ({error}); save it as UTF-8") from None
