"""Tar archives read in place: where the bytes of every member lie, with nothing unpacked.

Names are taken as labels of bytes and never as places to write to or to read from. Members that would be dangerous to
unpack (absolute names, names with `..`, links, devices) are reported with the reason and are not read.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = tarfile.BLOCKSIZE
_MAX_EXTENSION = 1 << 20  # bytes of an extended header: a name, not a payload
_EXTENSIONS = frozenset((*b"LKxgX",))  # GNU long name and link; POSIX headers of a member, of all; Solaris' of a member
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of an archive.

    Attributes:
        name: without a leading `./`; may be any text.
        offset, size: where its bytes lie in the file, in bytes.
        unreadable: why there are no bytes of its own to read; empty for an ordinary file.
    """

    name: str
    offset: int
    size: int
    unreadable: str = ""

    @property
    def problem(self) -> str:
        """Why it is not to be taken; empty for an ordinary file with a harmless name."""
        if not self.unreadable and (self.name.startswith("/") or ".." in self.name.split("/")):
            return f"the name {self.name!r} leads out of the archive"
        return self.unreadable


def members(path: Path, start: int = 0, stop: int | None = None) -> Iterator[Member]:
    """All members but folders, in the order of the archive, which may itself lie inside a file at start..stop-1.

    Only headers are read, at random: of a large archive a few KB per member.

    Raises:
        ValueError: not an uncompressed tar archive, damaged, or cut short.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        yield from _members(descriptor, path, start, os.fstat(descriptor).st_size if stop is None else stop)
    finally:
        os.close(descriptor)


def read_extent(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on; ValueError where it ends before them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _read(descriptor, path, offset, size)
    finally:
        os.close(descriptor)


def _members(descriptor: int, path: Path, start: int, stop: int) -> Iterator[Member]:
    position = start
    extension: dict[str, str] = {}
    while position < stop:
        info = _header(_read(descriptor, path, position, min(_BLOCK, stop - position)), path, position, start)
        if info is None:
            return
        offset = position + _BLOCK
        size = _size(extension, info, path, position)
        stored = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES or info.type[0] in _EXTENSIONS
        position = offset + (-(-size // _BLOCK) * _BLOCK if stored else 0)
        if offset + (size if stored else 0) > stop:
            raise ValueError(f"{path} is cut short inside the member {info.name!r}; copy it again")
        if info.type[0] in _EXTENSIONS:
            if size > _MAX_EXTENSION:
                raise ValueError(f"{path} has an extended header of {size} bytes at byte {offset}; it is damaged")
            extension |= _extension(info.type, _read(descriptor, path, offset, size))
            continue
        name = extension.get("path", info.name).removeprefix("./")
        sparse = any(word.startswith("GNU.sparse") for word in extension)
        extension = {}
        if not info.isdir() and not name.endswith("/"):
            yield Member(name=name, offset=offset, size=size, unreadable=_unreadable(info, sparse))


def _header(block: bytes, path: Path, position: int, start: int) -> tarfile.TarInfo | None:
    """The header in `block`, None at the end of the archive."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if len(block) == _BLOCK and not any(block):
            return None
        if position == start:
            raise ValueError(f"{path} holds no uncompressed tar archive at byte {position} ({error})") from None
        raise ValueError(f"{path} is damaged at byte {position} ({error}); copy it again") from None


def _size(extension: dict[str, str], info: tarfile.TarInfo, path: Path, position: int) -> int:
    stated = extension.get("size", "") if info.type[0] not in _EXTENSIONS else ""
    size = int(stated) if stated.isdecimal() and len(stated) < 20 else info.size
    if size < 0:
        raise ValueError(f"{path} is damaged at byte {position} (a size of {size}); copy it again")
    return size


def _extension(kind: bytes, body: bytes) -> dict[str, str]:
    """What an extended header says of the next member: `path`, `size` and whatever else POSIX headers hold."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": body.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    if kind in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
        return {}  # where a link points, and what is said of all members alike, are of no use here
    found = {}
    while body[:1].isdigit():  # records "LENGTH KEY=VALUE\n"; the value may hold line ends
        digits, _, _ = body.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 10 else 0
        key, equals, value = body[len(digits) + 1 : length].partition(b"=")
        if not equals:
            break
        found[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        body = body[length:]
    return found


def _unreadable(info: tarfile.TarInfo, sparse: bool) -> str:
    if info.type in _LINKS:
        return "a link in an archive is not followed"
    if not info.isreg() or sparse or info.type == tarfile.GNUTYPE_SPARSE:
        return "not a regular file"
    return ""


def _read(descriptor: int, path: Path, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    while len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            raise ValueError(f"{path} ends at byte {offset + len(data)}, before it should; copy it again")
        data += more
    return data
