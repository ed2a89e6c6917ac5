"""Tells a fault of one input file from a fault of the storage that holds the whole source."""

import os
from collections.abc import Iterable
from errno import EACCES, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, ESTALE

# Everything else (EIO, ESTALE, ENOTCONN, too many open files) is a fault of the storage or of the machine.
_OF_ONE_FILE = {
    ENOENT: "No such file, or a link to one that does not exist",
    ELOOP: "a link to itself",
    EACCES: "permission denied",
    EPERM: "operation not permitted",
    EISDIR: "a folder, not a file",
    ENOTDIR: "a part of its path is not a folder",
    ENAMETOOLONG: "the name is too long",
}


class Roots:
    """The folders of a source, identified by device and inode when the source was listed.

    A mount point outlives its file system as an empty folder, so that the path alone does not tell whether the source
    is still there. An unmounted or replaced folder has another device or inode.
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]]) -> None:
        self._known = {os.fspath(folder): _identity(os.fspath(folder)) for folder in folders}

    def reason(self, path: str, error: OSError) -> str:
        """Why the file `path` of this source cannot be read, where the fault is of this file alone.

        Raises:
            OSError: the storage failed: `error` itself, or what is wrong with the folders of the source.
        """
        if error.errno not in _OF_ONE_FILE:
            raise error
        for folder, known in self._known.items():
            if _identity(folder) != known:
                raise OSError(ESTALE, "the folder was unmounted or replaced since it was listed", folder)
        _identity(os.path.dirname(path))
        return _OF_ONE_FILE[error.errno]


def _identity(folder: str) -> tuple[int, int]:
    """Device and inode of a folder that can be listed; OSError where it cannot."""
    with os.scandir(folder) as entries:
        next(entries, None)
    info = os.stat(folder)
    return info.st_dev, info.st_ino
