"""What a figure was measured on: hardware, versions, command."""

import os
import platform
import shlex
import sys
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("prunekd", "torch", "torchvision", "timm", "numba", "numpy", "triton", "simplejpeg", "ffcv")
DALI_PACKAGES = ("nvidia-dali-cuda120", "nvidia-dali-cuda130", "nvidia-dali-cuda110")


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """Model name of the processor as the kernel gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def available_cores() -> int:
    """Cores this process may use (an affinity mask or container quota may leave fewer than the machine has)."""
    return len(os.sched_getaffinity(0))


def busy_cores(seconds: float = 0.5) -> float:
    """Cores out of those this process may use that others keep busy, measured over `seconds` while this one sleeps."""
    cores = os.sched_getaffinity(0)

    def ticks() -> dict[int, tuple[int, int]]:
        """By core: ticks in all, and those of them that were idle."""
        found = {}
        for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines():
            name, *fields = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
                numbers = [int(field) for field in fields[:8]]  # what follows is counted in these already
                found[int(name[3:])] = sum(numbers), numbers[3] + numbers[4]
        return found

    before = ticks()
    time.sleep(seconds)
    after = ticks()
    spans = [(after[core][0] - before[core][0], after[core][1] - before[core][1]) for core in after if core in before]
    return sum(1 - idle / whole for whole, idle in spans if whole > 0)


def now() -> str:
    """The time of day in UTC, to the second, as ISO 8601 writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def command_line() -> str:
    """The command that started this process, as one would type it."""
    return shlex.join([Path(sys.argv[0]).name.replace("__main__.py", "prunekd"), *sys.argv[1:]])


def describe_machine() -> dict[str, Any]:
    """Hardware, versions, command line and time as plain values for JSON."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    versions = {name: installed_version(name) for name in (*PACKAGES, *DALI_PACKAGES)}
    return {
        "processor": processor_name(),
        "cores": available_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name, version in versions.items() if version},
        "command": command_line(),
        "started": now(),
    }
