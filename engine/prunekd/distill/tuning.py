"""Short measurements that choose how a teacher runs, remembered on disk, and a bound on what that may change."""

import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunekd.common.files import write_json
from prunekd.common.machine import processor_name

logger = logging.getLogger(__name__)

# Root-mean-square difference of an image's logits to those of the plain float32 model, in stds of its logits, for the
# worst image. bfloat16 gives about 0.02 with a ResNet-50.
DRIFT_WARNING = 0.1
DRIFT_LIMIT = 0.5
ROUNDS = 5
SECONDS_EACH = 1.0  # a contender's turns stop after so many seconds
COMPILE_SECONDS = 40.0  # guesses, until this machine's own figures are known
COMPILE_GAIN = 0.25


def cache_file() -> Path:
    """Where measurements are kept: prunekd/teacher.json in $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunekd" / "teacher.json"


class Measurements:
    """Figures by key in a JSON file; a file that cannot be read or written costs a measurement, and is spoken of."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> dict[str, Any]:
        """What is known under `key`; empty if nothing is."""
        found = self._read().get(key, {})
        return found if isinstance(found, dict) else {}

    def put(self, key: str, **figures: Any) -> None:
        """Add figures to what is known under `key`."""
        known = self._read()
        known[key] = self.get(key) | figures
        try:
            write_json(self._path, known)
        except OSError as error:
            logger.warning(f"teacher: the measurement is not remembered: {error}")

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.warning(f"teacher: {self._path} cannot be read ({error}); measuring again")
            return {}
        return known if isinstance(known, dict) else {}


def circumstances(model: str, images: Tensor, size: int | str | None, device: torch.device) -> str:
    """Key of a measurement: all that it depends on but the choice itself."""
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    else:
        where = f"{processor_name()}, {torch.get_num_threads()} threads"
    batch, _, height, width = images.shape
    own = "" if size is None else f" resized to {size}"
    return f"{model}, {batch} x {height} x {width}{own}, torch {torch.__version__}, {where}"


@torch.no_grad()
def median_seconds(calls: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Median seconds of each call, in turns after one turn to warm up; ROUNDS turns, or fewer of slow calls."""
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            if sum(found[name]) > SECONDS_EACH:
                continue
            _wait(device)
            started = time.perf_counter()
            call()
            _wait(device)
            found[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in found.items()}


def drift(exact: Tensor, logits: Tensor) -> float:
    """Largest root-mean-square difference of a row of logits (B, C), in stds of the exact row."""
    difference = (logits.float() - exact.float()).square().mean(1).sqrt()
    return float((difference / exact.float().std(1).clamp_min(1e-6)).max())


def require_small(found: float, how: str) -> None:
    """Warn of a drift, or raise.

    Raises:
        RuntimeError: above DRIFT_LIMIT, or not a number.
    """
    if not found <= DRIFT_LIMIT:
        raise RuntimeError(
            f"the teacher in {how} differs from the plain float32 model by {found:.2g} std of its logits (limit "
            f"{DRIFT_LIMIT}): its soft labels would be wrong; use another precision"
        )
    if found > DRIFT_WARNING:
        logger.warning(
            f"teacher: warning: in {how} it differs from the plain float32 model by {found:.2g} std of its logits; "
            "float32 would be exact"
        )


def worth_compiling(known: Mapping[str, Any], forwards: int, seconds: float) -> tuple[bool, str]:
    """Whether compiling pays for `forwards` forward passes of `seconds` each, and the reckoning in words."""
    cost, gain = known.get("compile_seconds", COMPILE_SECONDS), known.get("compile_gain", COMPILE_GAIN)
    saved = forwards * seconds * gain
    source = f"measured before, see {cache_file()}" if "compile_seconds" in known else "guessed"
    return saved > cost, f"{forwards} forwards save {saved:.0f} s, compiling costs {cost:.0f} s ({source})"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
