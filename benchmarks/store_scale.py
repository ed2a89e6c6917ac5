"""How long does a store of ImageNet's size take to open and to plan? Rows are appended to results/store_scale.csv.

    python benchmarks/store_scale.py [--samples 1281167] [--repeats 5] [--folder DIR]

The store's metadata are whole: index, header, metadata rows and allocation table of so many samples, with sizes and
dimensions distributed as ImageNet's are. Its payloads are a hole in a sparse file, which nothing here reads. A second
store is its compaction to half, in the order of a random ranking: ids neither dense nor ascending.

Every repeat is a process of its own, which opens the store, plans an epoch over all samples and over half of them
(an order, and the views of the first batch), and looks up the keys of a batch. Seconds are those of the call alone,
with the files in the page cache, on one core; medians with the 20th and 80th percentile. Memory is the resident set in
MB: of the process with NumPy and Arrow imported (`before_mb`), with the store open (`open_mb`, `open_peak_mb` at its
highest), and what planning both epochs adds to it (`plan_adds_mb`), PyTorch not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from prunekd.common.files import write_json
from prunekd.store.format.beton_writer import DEFAULT_PAGE_SIZE, BetonWriter, Rows
from prunekd.store.format.index import SCHEMA, Fingerprint, index_path, write_index
from prunekd.store.format.store import STORE_FILE, STORE_VERSION
from recording import RESULTS, append_rows, circumstances, spread

CLASSES = 1000
PART = 1 << 16
BATCH = 1024


def make_store(folder: Path, samples: int, keep: float = 1.0) -> None:
    """Write a store of `samples` samples, or one compacted to the fraction `keep` of it, without payloads."""
    from prunekd.store.jobs.compact import place  # here, because the measured processes have no need of it

    rng = np.random.default_rng(0)
    ids = np.arange(samples)
    sizes = np.clip(rng.lognormal(np.log(97_000), 0.5, samples), 2000, DEFAULT_PAGE_SIZE).astype(np.int64)
    long_side = rng.choice([500, 640, 800, 1024], p=[0.8, 0.08, 0.05, 0.07], size=samples)
    short_side = (long_side * rng.uniform(0.5, 1.0, samples)).astype(np.int64)
    upright = rng.random(samples) < 0.25
    crc32 = rng.integers(0, 1 << 32, samples)
    if keep < 1:
        ids = rng.permutation(samples)[: round(samples * keep)]
    folder.mkdir()
    pointers = place(sizes[ids], DEFAULT_PAGE_SIZE)
    columns = {
        "id": ids,
        "key": [f"n{1440764 + 6173 * (k * CLASSES // samples):08}/n_{k:07}.JPEG" for k in ids.tolist()],
        "label": ids * CLASSES // samples,
        "pointer": pointers,
        "size": sizes[ids],
        "mode": np.zeros(len(ids), np.uint8),
        "width": np.where(upright, short_side, long_side)[ids],
        "height": np.where(upright, long_side, short_side)[ids],
        "crc32": crc32[ids],
    }
    table = pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names})
    beton = folder / "train.beton"
    write_index(index_path(beton), [table])
    beton.touch()
    os.truncate(beton, int(pointers[-1] + sizes[ids[-1]]))
    with BetonWriter(beton, capacity=len(ids), cursor=beton.stat().st_size) as writer:
        writer.finish(_rows(columns))
    fingerprint = Fingerprint()
    fingerprint.begin("train")
    fingerprint.add(table.take(np.argsort(ids)))
    info = {
        "version": STORE_VERSION,
        "prunekd": "benchmark",
        "fingerprint": fingerprint.hexdigest(),
        "classes": [f"class {k}" for k in range(CLASSES)],
        "splits": {"train": {"samples": len(ids), "bytes": int(sizes[ids].sum())}},
        "source": {"kind": "benchmark", "path": str(folder), "listing": ""},
        "settings": {},
        "ignored": {},
        "quarantined": [],
    }
    write_json(folder / STORE_FILE, info)


def _rows(columns: dict[str, Any]) -> Iterator[Rows]:
    names = {"ids": "id", "labels": "label", "pointers": "pointer", "sizes": "size", "modes": "mode"}
    names |= {"widths": "width", "heights": "height"}
    for start in range(0, len(columns["id"]), PART):
        yield Rows(**{name: columns[column][start : start + PART] for name, column in names.items()})


def measure(folder: Path) -> dict[str, float]:
    """One repeat, in this process."""
    from prunekd.store import open_store

    figures: dict[str, float] = {"before_mb": _resident()}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        figures[f"{name}_seconds"] = time.perf_counter() - start
        return result

    split = timed("open", lambda: open_store(folder)).split("train")
    figures |= {"open_mb": _resident(), "open_peak_mb": _resident("VmHWM")}

    from prunekd.input.plan import train_plan
    from prunekd.input.views import ViewSettings

    imported = _resident()
    view = ViewSettings(kind="random_resized_crop", size=224)

    def plan(ids: np.ndarray | None) -> Any:
        made = train_plan(split, ids=ids, seed=0, epoch=1, batch_size=BATCH, view=view)
        made.batch(0)
        return made

    whole = timed("plan", lambda: plan(None))
    half = np.random.default_rng(1).permutation(split.ids)[: len(split) // 2]
    timed("plan_half", lambda: plan(half))
    timed("batch", lambda: whole.batch(1))
    timed("keys", lambda: split.keys(whole.batch(0).rows))
    return figures | {"plan_adds_mb": _resident() - imported}


def _resident(field: str = "VmRSS") -> float:
    """A figure of /proc/self/status in MB; ru_maxrss would count the parent's memory at the time of the fork."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024 / 1e6


def row(name: str, folder: Path, samples: int, repeats: int) -> dict[str, Any]:
    """Measure a store in so many processes."""
    command = [sys.executable, __file__, "--measure", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = [json.loads(subprocess.check_output(command, env=environment)) for _ in range(repeats + 1)][1:]
    columns: dict[str, Any] = {"store": name, "samples": samples, "repeats": repeats}
    for figure in found[0]:
        values = [one[figure] for one in found]
        if figure.endswith("seconds"):
            columns |= spread(figure, values)
        else:
            columns[figure] = round(statistics.median(values), 1)
    return columns | circumstances()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="Where to make the stores and to leave them.")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        rows = []
        for name, keep in (("whole", 1.0), ("compacted to half", 0.5)):
            folder = root / f"store-{arguments.samples}-{keep:g}"
            if not folder.exists():
                make_store(folder, arguments.samples, keep)
            rows.append(row(name, folder, round(arguments.samples * keep), arguments.repeats))
            print({name: value for name, value in rows[-1].items() if name not in circumstances()})
        append_rows(RESULTS / "store_scale.csv", rows)


if __name__ == "__main__":
    main()
