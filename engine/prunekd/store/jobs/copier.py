"""Extents of one file copied into another."""

import logging
import os
from errno import EDQUOT, EFBIG, EINVAL, ENOSPC, ENOSYS, EOPNOTSUPP, EXDEV
from pathlib import Path

from prunekd.common.closing import Closing

logger = logging.getLogger(__name__)


class Copier(Closing):
    """Copies extents of one file into another; threads may share it.

    `copy_file_range` lets the file system do it: over a network the bytes need not travel. Where it is not to be had,
    as between two file systems, they are read and written.

    Args:
        source: to read from.
        target: to write to; made if it is not there, and cut or filled up with zeros to `size` bytes.

    Raises:
        OSError: a file cannot be opened.
    """

    def __init__(self, source: Path, target: Path, size: int) -> None:
        self._source_path = source
        self._source = os.open(source, os.O_RDONLY)
        self._target = os.open(target, os.O_RDWR | os.O_CREAT, 0o666)
        self._open = [self._source, self._target]
        os.posix_fadvise(self._source, 0, 0, os.POSIX_FADV_RANDOM)
        os.ftruncate(self._target, size)
        self._by_kernel = True

    def copy(self, source: int, target: int, size: int) -> None:
        """Copy `size` bytes from the offset `source` to the offset `target`.

        Raises:
            ValueError: the source ends before.
            OSError: the disk is full, or the storage failed; an error of the source names it.
        """
        while size and self._by_kernel:
            try:
                moved = os.copy_file_range(self._source, self._target, size, source, target)
            except OSError as error:
                if error.errno in (ENOSPC, EDQUOT, EFBIG):
                    raise
                if error.errno in (EINVAL, ENOSYS, EOPNOTSUPP, EXDEV):
                    self._by_kernel = False
                    logger.info(
                        f"copy_file_range is not supported here ({error.strerror}); falling back to reading and writing"
                    )
                break  # of any other error, reading and writing will tell which of the files it is about
            if not moved:
                break  # the source has ended, or its file system cannot do it: reading will tell
            source, target, size = source + moved, target + moved, size - moved
        while size:
            data = self._read(min(size, 1 << 20), source)
            if not data:
                raise ValueError(f"{self._source_path} ends before offset {source + size}; convert the dataset again")
            moved = os.pwrite(self._target, data, target)
            source, target, size = source + moved, target + moved, size - moved

    def _read(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._source, size, offset)
        except OSError as error:
            raise OSError(
                f"cannot read {self._source_path}: {error.strerror}; what is copied so far is kept: make the store "
                "available again, then run the same command again to go on"
            ) from error

    def sync(self) -> None:
        """Bring everything copied so far to the disk."""
        os.fsync(self._target)

    def close(self) -> None:
        """Close both files."""
        while self._open:
            os.close(self._open.pop())
