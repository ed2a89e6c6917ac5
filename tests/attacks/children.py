"""Run prunekd's command line in forked children of one warm process, where a chosen file operation goes wrong.

Starting Python and importing torch takes seconds. A child forked after the imports needs none of them, so hundreds of
attacks fit in a minute. File operations are seen by an audit hook, which CPython calls before each of them, and
by wrappers around those that raise no audit event. Writes inside libraries (Arrow, safetensors) are not seen. A limit
on the size of files reaches those.
"""

import errno
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from prunekd.cli import VERBS, main

UNSEEN = ("write", "pwrite", "fsync", "fdatasync", "copy_file_range", "ftruncate")  # raise no audit event
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
MAKES = ("open", "os.mkdir", "os.link", "os.symlink", "write", "pwrite", "fsync", "fdatasync", "copy_file_range")
PATIENCE = 120.0  # seconds after which a child counts as hung


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens at a file operation.

    Attributes:
        at: number of the operation, from 1, among those that change something below `folder`; 0 only counts.
        act: `kill` or `pause` the process, `full`: no more space from there on, `dead`: every operation fails from
            there on, `readonly`: every change fails, `moved`: `folder` is moved away.
        folder: where operations count.
        reads: whether opening a file to read it is counted in place of changes.
    """

    at: int
    act: str
    folder: Path
    reads: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended: exit code (negative: a signal; None: hung), what it printed, the operations counted."""

    code: int | None
    output: str
    errors: str
    operations: tuple[str, ...]

    @property
    def traceback(self) -> bool:
        """Whether a traceback was printed."""
        return "Traceback (most recent call last)" in self.errors

    @property
    def told(self) -> bool:
        """Whether it ended as a failure that prunekd tells of in one line."""
        return self.code in (1, 2) and self.last_line.startswith(("prunekd: error: ", "Error: ")) and not self.traceback

    @property
    def how(self) -> str:
        """How it ended, in words."""
        several = self.code in (1, 2) and "\nprunekd: error: " in "\n" + self.errors
        kind = (
            "it hung"
            if self.code is None
            else "a traceback"
            if self.traceback
            else "an error of several lines"
            if several and not self.told
            else f"exit code {self.code}"
        )
        return f"{kind}, {self.last_line}"

    @property
    def last_line(self) -> str:
        """The last line on stderr."""
        return (self.errors.strip().splitlines() or [""])[-1]


def load() -> None:
    """Import what the verbs need, before anything is forked."""
    for verb in VERBS:
        import_module(f"prunekd.cli.{verb}")
    for name in ("pandas", "torch.utils.tensorboard", "torch._dynamo", "prunekd.sweep.run", "prunekd.training.loop"):
        with suppress(ImportError):
            import_module(name)


def call(words: list[str], folder: Path) -> None:
    """Run `prunekd WORDS` in this process, so that what it imports, compiles and caches is there for every child.

    Nothing that computes gradients: PyTorch's autograd does not work in a child of a process that used it.
    """
    with chdir(folder), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        main(words, standalone_mode=False)


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    """Work in `folder` for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class Child:
    """A verb running in a forked process."""

    def __init__(
        self, words: list[str], folder: Path, fault: Fault | None = None, limit: int | None = None, torn: bool = False
    ) -> None:
        """Start `prunekd WORDS` in `folder`.

        Args:
            limit: bytes after which writing a file fails, or kills the process where `torn` says so.
        """
        pipes = [os.pipe() for _ in range(3)]  # stdout, stderr, one line for each operation
        self._texts = [b"", b"", b""]
        self._status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.dup2(pipes[0][1], 1)
                os.dup2(pipes[1][1], 2)
                code = _call(words, folder, fault, pipes[2][1], limit, torn)
            finally:
                os._exit(code)
        for _, end in pipes:
            os.close(end)
        self._pipes = [end for end, _ in pipes]
        for end in self._pipes:
            os.set_blocking(end, False)

    def stopped(self) -> bool:
        """Wait until the child paused itself (True) or ended (False)."""
        while True:
            pid, status = os.waitpid(self.pid, os.WUNTRACED | os.WNOHANG)
            if pid and os.WIFSTOPPED(status):
                return True
            if pid:
                self._status = status
                return False
            self._read()

    def resume(self) -> None:
        """Let a paused child go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the child."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Ended:
        """Wait for the end; a child that takes longer than PATIENCE is killed."""
        end, hung = time.monotonic() + PATIENCE, False
        while self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
            self._read()
            if time.monotonic() > end and not hung:
                self.kill()
                hung = True
        self._read()
        for descriptor in self._pipes:
            os.close(descriptor)
        output, errors, operations = (text.decode(errors="replace") for text in self._texts)
        code = None if hung else os.waitstatus_to_exitcode(self._status)
        return Ended(code=code, output=output, errors=errors, operations=tuple(operations.splitlines()))

    def _read(self) -> None:
        """Take what the child wrote, so that it never waits for a full pipe."""
        select.select(self._pipes, [], [], 0.002)
        for number, descriptor in enumerate(self._pipes):
            with suppress(BlockingIOError):
                while more := os.read(descriptor, 1 << 16):
                    self._texts[number] += more
        time.sleep(0.002)


def _call(words: list[str], folder: Path, fault: Fault | None, log: int, limit: int | None, torn: bool) -> int:
    """Run the command line in this process; its exit code."""
    os.chdir(folder)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if torn else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if fault is not None:
        _watch(fault, log)
    try:
        main(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 70
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    return 0


def run(
    words: list[str], folder: Path, fault: Fault | None = None, limit: int | None = None, torn: bool = False
) -> Ended:
    """Run `prunekd WORDS` in `folder` to its end; arguments as of Child."""
    return Child(words, folder, fault, limit, torn).wait()


def _watch(fault: Fault, log: int) -> None:
    """Count the operations below `fault.folder` in the file `log`, one line each, and let the fault happen."""
    inside, write = str(fault.folder.absolute()), os.write
    seen = 0

    def happen(operation: str, path: object) -> None:
        nonlocal seen
        seen += 1
        write(log, f"{operation} {path}\n".encode())
        if fault.at == 0 or seen < fault.at:
            return
        if fault.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.act == "pause" and seen == fault.at:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault.act == "moved" and seen == fault.at:
            seen_folder = Path(inside)
            seen_folder.rename(seen_folder.with_name(seen_folder.name + ".gone"))
        elif fault.act == "full" and operation in MAKES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        elif fault.act == "dead":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        elif fault.act == "readonly":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def hook(event: str, args: tuple) -> None:
        if event != "open" and event not in CHANGES:
            return
        if not isinstance(args[0], str | bytes | os.PathLike):
            return  # a descriptor
        name = os.fsdecode(args[0])
        if event == "open":
            writing = bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            if writing == fault.reads:
                return
        elif fault.reads:
            return
        if os.path.abspath(name).startswith(inside):
            happen(event, name)

    sys.addaudithook(hook)
    if not fault.reads:
        for name in UNSEEN:
            if hasattr(os, name):
                setattr(os, name, _wrapped(name, getattr(os, name), happen))


def _wrapped(name: str, function: Callable, happen: Callable[[str, object], None]) -> Callable:
    def wrapper(*args: int, **more: int) -> object:
        if not (name == "write" and args[0] <= 2):
            happen(name, f"descriptor {args[0]}")
        return function(*args, **more)

    return wrapper
