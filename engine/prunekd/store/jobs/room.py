"""Room on a disk, in words."""

import shutil
from pathlib import Path


def room_left(path: Path, needed: int) -> str:
    """How many bytes the file system of `path` has free, and how many are needed if that is known (above 0)."""
    folder = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    free = f"{human_bytes(shutil.disk_usage(folder).free)} are free"
    return f"about {human_bytes(needed)} are needed, {free}" if needed > 0 else free


def human_bytes(count: float) -> str:
    """A number of bytes with a unit, such as `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
