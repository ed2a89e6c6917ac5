"""Readers side by side: ours, FFCV, DALI and torchvision by their own books, and the bare limit.

    python benchmarks/readers.py FOLDER [--only NAME,...] [--rounds 5] [--keep 1,0.5,0.2,0.05] [--cache warm,cold]

FOLDER is an image folder (train/CLASS/*.jpg). Every contender has a process of its own that stays for the whole run and
random-resized-crops the same photographs to --side pixels, mirrored with probability 1/2, as uint8 batches in memory,
with --threads decoding threads or processes. They take turns epoch by epoch, in an order that moves on every round, so
that whatever else happens on the machine slows all of them alike. --copies gives a small folder epochs of some length.

Columns: images_per_s over wall time; cpu_ms_per_image is processor time of the process and its children; start_s from
the contender's making to its first batch, with the import of its library and with what it compiles, in a process that
has imported PyTorch; peak_rss_mib of process and children together, which counts what they share more than once. In
warm rounds all files are in the page cache. In cold rounds they are dropped from it before (posix_fadvise DONTNEED) and
bytes_over_payload is what lies in it after the epoch (mincore; read-ahead included, in whole pages of 4 KiB, of which a
sample that lies alone has about one more than its bytes fill) over the bytes of the kept samples in the contender's own
file; asked_over_payload is what our readers asked of the storage. `limit` decodes, crops and resizes from memory in one
thread; its images_per_s are those of one thread times --threads. Rows are appended to benchmarks/results/readers.csv.

A load_average far above --threads says that others used the machine too: then processor times still hold, within a few
per cent, and images_per_s do not.

What is made once (a store, FFCV's own file) stays in --work for the next call; --only splits a run into pieces.
"""

import argparse
import ctypes
import hashlib
import math
import mmap
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: F401  so that no contender's start holds its import

from prunekd.store import open_store
from reader_peers import CONTENDERS, Contender, Job, prepare, ranking
from recording import RESULTS, append_rows, circumstances, spread

PAGE = mmap.PAGESIZE
REFERENCE = "FFCV RANDOM"
Cell = tuple[str, float, str]  # contender, keep, cache


def main() -> None:
    """Measure and append; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, separated by commas")
    parser.add_argument("--keep", default="1,0.5,0.2,0.05", help="fractions of the samples kept")
    parser.add_argument("--cache", default="warm,cold")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no round that would end later")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--copies", type=int, default=1, help="how many times the dataset holds every photograph")
    parser.add_argument("--work", type=Path, help="where to keep what is made once")
    parser.add_argument("--out", type=Path, default=RESULTS / "readers.csv")
    options = parser.parse_args()
    names = options.only.split(",")
    unknown = set(names) - set(CONTENDERS)
    if unknown:
        parser.error(f"no such contender: {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    folder = options.folder.resolve()
    name = f"prunekd-readers-{hashlib.sha1(bytes(folder)).hexdigest()[:8]}-{options.copies}"
    work = options.work or Path(tempfile.gettempdir()) / name
    prepare(folder, options.copies, work)
    keeps = [float(keep) for keep in options.keep.split(",")]
    jobs = {keep: job(work, keep, options) for keep in keeps}
    children = {name: Child(name, jobs) for name in names}
    results: dict[Cell, list[dict[str, float]]] = defaultdict(list)
    began, rounds = time.perf_counter(), 0
    for number in range(options.rounds):
        if number and (time.perf_counter() - began) * (number + 1) / number > options.seconds:
            break
        rounds += 1
        for cache in options.cache.split(","):
            for keep in keeps:
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    results[name, keep, cache].append(children[name].ask(keep, cache))
    ends = {name: child.close() for name, child in children.items()}
    rows = [row(cell, found, jobs[cell[1]], ends[cell[0]], rounds) for cell, found in results.items()]
    here = circumstances()
    append_rows(options.out, [{**found, **here} for found in rows])
    show(rows, results)


def job(work: Path, keep: float, options: argparse.Namespace) -> Job:
    """The work at a keep ratio: a random subset, in whole batches."""
    count = len(open_store(work / "store").split("train"))
    size = max(1, round(count * keep) // options.batch_size) * options.batch_size
    ids = np.sort(ranking(count)[:size])
    return Job(work=work, ids=ids, batch_size=options.batch_size, side=options.side, threads=options.threads)


def row(cell: Cell, found: list[dict[str, float]], job: Job, end: dict[str, float], rounds: int) -> dict[str, Any]:
    """A line of the results."""
    name, keep, cache = cell
    return {
        "reader": name,
        "keep": keep,
        "cache": cache,
        "images": len(job.ids),
        "batch_size": job.batch_size,
        "side": job.side,
        "threads": job.threads,
        "rounds": rounds,
        **spread("images_per_s", [r["images"] / r["seconds"] for r in found], 1),
        **spread("cpu_ms_per_image", [1000 * r["cpu"] / r["images"] for r in found]),
        **spread("epoch_s", [r["seconds"] for r in found]),
        "bytes_over_payload": round(statistics.median(r["read"] for r in found), 3) if cache == "cold" else "",
        "asked_over_payload": round(found[0]["asked"], 3) if found[0]["asked"] else "",
        **{key: round(value, 2) for key, value in end.items()},
        "load_average": round(os.getloadavg()[0], 2),
    }


def show(rows: list[dict[str, Any]], results: dict[Cell, list[dict[str, float]]]) -> None:
    """Print the rows, with images per CPU-second over FFCV's of the same round where it took part."""
    for line in rows:
        cell = line["reader"], line["keep"], line["cache"]
        theirs = results.get((REFERENCE, *cell[1:]))
        ratio = ""
        if theirs:
            pairs = zip(theirs, results[cell], strict=True)
            values = [(a["cpu"] / a["images"]) / (b["cpu"] / b["images"]) for a, b in pairs]
            ratio = f"{statistics.median(values):5.2f} x FFCV"
        print(
            f"{cell[0]:<20} keep {cell[1]:<5} {cell[2]:<5} {line['images_per_s_median']:7.0f} images/s  "
            f"{line['cpu_ms_per_image_median']:6.3f} ms CPU ({line['cpu_ms_per_image_p20']:.3f} to "
            f"{line['cpu_ms_per_image_p80']:.3f})  {ratio:13} epoch {line['epoch_s_median']:.3f} s  "
            f"read {line['bytes_over_payload'] or '-'}  start {line['start_s']} s  {line['peak_rss_mib']:.0f} MiB"
        )


class Child:
    """A contender in its own process."""

    def __init__(self, name: str, jobs: dict[float, Job]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, name, jobs))  # may have children itself
        self._process.start()
        theirs.close()
        self._answer()

    def ask(self, keep: float, cache: str) -> dict[str, float]:
        """One epoch."""
        self._pipe.send((keep, cache))
        return self._answer()

    def close(self) -> dict[str, float]:
        """End it; what there is to say of the whole process."""
        self._pipe.send(None)
        end = self._answer()
        self._process.join()
        return end

    def _answer(self) -> dict[str, float]:
        answer: dict[str, float] | str = self._pipe.recv()
        if isinstance(answer, str):
            sys.exit(answer)
        return answer


def serve(pipe: Any, name: str, jobs: dict[float, Job]) -> None:
    """Do what the pipe asks, until it asks for nothing more or breaks, or something fails."""
    multiprocessing.set_start_method("fork", force=True)  # of data-loading processes: Python's choice in a main process
    try:
        answer(pipe, name, jobs)
    except EOFError:
        pass
    except Exception:
        pipe.send(f"{name} failed:\n{traceback.format_exc()}")
    os._exit(0)  # libraries that hang when they are taken down are not the subject here


def answer(pipe: Any, name: str, jobs: dict[float, Job]) -> None:
    """Make a contender for every job, warm it up, then run epochs as asked."""
    contenders: dict[float, Contender] = {}
    epochs = 0
    start = 0.0
    for keep, work in jobs.items():
        began = time.perf_counter()
        contenders[keep] = CONTENDERS[name](work)
        for _ in contenders[keep].epoch(epochs):
            start = start or time.perf_counter() - began
        epochs += 1
    pipe.send({})
    while (asked := pipe.recv()) is not None:
        keep, cache = asked
        epochs += 1
        pipe.send(measure(name, contenders[keep], jobs[keep], cache, epochs))
    pipe.send({"start_s": start, "peak_rss_mib": sum(map(peak_rss, processes())) / 2**20})


def measure(name: str, contender: Contender, job: Job, cache: str, number: int) -> dict[str, float]:
    """Run an epoch and say what it cost."""
    if cache == "cold":
        contender.unmap()
        for path in contender.files:
            drop(path)
    else:
        for path in contender.files:
            path.read_bytes()
    asked = contender.asked() if contender.asked else 0
    cpu, began = cpu_seconds(), time.perf_counter()
    images = sum(contender.epoch(number))
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    assert images == len(job.ids), (name, images, len(job.ids))
    if name == "limit":
        seconds = cpu / job.threads
    asked = (contender.asked() - asked) if contender.asked else 0
    sizes = {"read": resident(contender.files) / contender.payload, "asked": asked / contender.payload}
    return {"images": images, "seconds": seconds, "cpu": cpu, **sizes}


def drop(path: Path) -> None:
    """Drop a file from the page cache."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


def resident(paths: Iterable[Path]) -> int:
    """Bytes of files in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    total = 0
    for path in paths:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            view = np.frombuffer(mapped, np.uint8)
            flags = np.zeros(-(-len(view) // PAGE), np.uint8)
            place, length, into = (ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view)), flags.ctypes.data)
            if libc.mincore(place, length, ctypes.c_void_p(into)) != 0:
                raise OSError(ctypes.get_errno(), f"mincore of {path}")
            total += PAGE * int((flags & 1).sum())
            del view
    return total


def processes() -> list[int]:
    """This process and all its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
    found = [os.getpid()]
    for pid in found:  # grows as it goes
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def cpu_seconds() -> float:
    """Processor time of this process and its descendants."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for pid in processes()[1:]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def peak_rss(pid: int) -> int:
    """Most bytes of memory a process held at a time."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
