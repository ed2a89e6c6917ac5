"""A folder that one process at a time writes to."""

import errno
import fcntl
import json
import os
import platform
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from prunekd.common.machine import command_line, now

LOCK_FILE = "lock"
HELD_FILE = "lock.held"  # in its place where there is no flock
_NO_FLOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # as network file systems answer


@contextmanager
def locked(folder: Path, what: str = "conversion") -> Iterator[None]:
    """Hold a folder for the block, so that no other process, and no other caller in this one, writes to it.

    The file `lock` in the folder names the holder. The operating system releases the lock of a killed process. On
    a file system without flock, the existence of `lock.held` is the lock: the next process on the same host removes
    that of a dead one, and another host's must be removed by hand. A folder that did not exist and stays empty is
    removed.

    Args:
        what: what the holder is called in the message.

    Raises:
        RuntimeError: another process holds the folder; the message names it.
        OSError: the folder cannot be written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held, descriptor = _take(folder / LOCK_FILE, what)
        try:
            yield
        finally:
            _release(held, descriptor)
    finally:
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def _take(path: Path, what: str) -> tuple[Path, int]:
    """Lock `path` and write the holder into it; returns the file that is the lock, and its open descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise RuntimeError(_refusal(path, what)) from None
            if error.errno not in _NO_FLOCK:
                raise
            path.unlink(missing_ok=True)
            return _take_by_name(path.with_name(HELD_FILE), what)
        if _is(path, descriptor):
            _sign(descriptor)
            return path, descriptor
        os.close(descriptor)  # the holder before removed the file between the two calls


def _take_by_name(path: Path, what: str) -> tuple[Path, int]:
    """Lock by creating `path`, which appears with its contents, where there is no flock."""
    own = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(own, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _sign(descriptor)
        for _ in range(2):
            with suppress(FileExistsError):
                os.link(own, path)
                return path, descriptor
            if _has_ended(_holder(path)):
                path.unlink(missing_ok=True)
        raise RuntimeError(f"{_refusal(path, what)}. If it has ended, remove {path}")
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        own.unlink()


def _release(path: Path, descriptor: int) -> None:
    # the folder may have been renamed or removed, and what stands there now be another's
    if _is(path, descriptor):
        path.unlink(missing_ok=True)
    os.close(descriptor)


def _is(path: Path, descriptor: int) -> bool:
    """True if `path` names the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _sign(descriptor: int) -> None:
    holder = {
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "host": platform.node(),
        "command": command_line(),
        "since": now(),
    }
    with suppress(OSError):  # on a full disk the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _holder(path: Path) -> Mapping[str, object]:
    """What the holder wrote about itself; empty if that cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(path: Path, what: str) -> str:
    holder = _holder(path)
    who = "its process is not known"
    if holder:
        mine = holder.get("pid") == os.getpid() and holder.get("host") == platform.node()
        process = "this process" if mine else f"process {holder.get('pid')}"
        who = f"{process} on {holder.get('host')}, since {holder.get('since')}: {holder.get('command')}"
    return f"another {what} is writing to {path.parent} ({who}); wait for it or stop it"


def _has_ended(holder: Mapping[str, object]) -> bool:
    """True if the holder ran on this host and does so no longer."""
    pid = holder.get("pid")
    here = holder.get("host") == platform.node()
    return here and isinstance(pid, int) and _start_of(pid) != holder.get("started")


def _start_of(pid: int) -> int | None:
    """When a process of this host began, in clock ticks since boot; None if there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[22 - 3])
    except (OSError, IndexError, ValueError):
        return None
