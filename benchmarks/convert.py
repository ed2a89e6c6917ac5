"""How fast does a folder of photographs become a file that FFCV reads? `prunekd convert` against FFCV's DatasetWriter.

    python benchmarks/convert.py FOLDER [--images 1000] [--passes 5] [--copies 1] [--workers 2] [--only NAME ...]

FOLDER is an image folder (`train/CLASS/*` or `CLASS/*`). Contenders, all with the same number of threads or processes:

- `prunekd`: JPEG files checked and stored byte for byte;
- `prunekd raw`: decoded, stored as pixels;
- `ffcv jpg`: torchvision's ImageFolder into DatasetWriter, write_mode="jpg": FFCV 1.0.2 cannot store the files as they
  are, so it decodes and encodes every image (quality 90, its default);
- `ffcv raw`: the same with write_mode="raw".

Every run is a process of its own, contenders take turns, each pass starting with another one, files are in the page
cache for all. The clock starts when all imports are done, and stops when the file is whole; ours is on the disk then
(fsync), FFCV's need not be. Processor time is that of the process and of those it started; memory is the peak of the
process itself above what it held when the clock started; --copies (hard links) makes the dataset larger without
touching more of the disk, to see whether memory grows. A row per contender, appended to benchmarks/results/convert.csv.
"""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from recording import RESULTS, append_rows, circumstances, spread

CONTENDERS = ("prunekd", "prunekd raw", "ffcv jpg", "ffcv raw")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--images", "limit", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--passes", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--copies", type=click.IntRange(min=1), default=1, show_default=True, help="Of every photograph.")
@click.option("--only", multiple=True, type=click.Choice(CONTENDERS), help="Measure this contender [default: all].")
@click.option("--scratch", type=click.Path(file_okay=False, path_type=Path), help="Where to write [default: TMPDIR].")
@click.option("--one", hidden=True, nargs=2, help="Convert with this contender to this path and print what it took.")
def main(
    folder: Path,
    limit: int,
    passes: int,
    workers: int,
    copies: int,
    only: tuple[str, ...],
    scratch: Path | None,
    one: tuple[str, str] | None,
) -> None:
    """Measure and append; see the module's text."""
    if one is not None:
        click.echo(json.dumps(convert_one(one[0], folder, Path(one[1]), workers)))
        return
    names = list(only or CONTENDERS)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(dir=scratch, prefix="convert-") as work:
        source, made = Path(work) / "photographs", Path(work) / "made"
        count, size = link_photographs(folder, source, limit, copies)
        for turn in range(passes):
            for k in range(len(names)):
                name = names[(turn + k) % len(names)]
                runs[name].append(measure(name, source, made, workers))
    rows = [row(name, found, count, size, workers) for name, found in runs.items()]
    append_rows(RESULTS / "convert.csv", rows)
    for line in rows:
        click.echo(
            f"{line['contender']:<12} {line['images']:>6} images: {line['images_per_second_median']:.0f} images/s "
            f"({line['images_per_second_p20']:.0f} to {line['images_per_second_p80']:.0f}), "
            f"{line['cpu_ms_per_image_median']:.2f} CPU ms, peak + {line['peak_mb_added_median']:.0f} MB, "
            f"{line['output_share']:.2f} x the photographs' bytes"
        )


def link_photographs(folder: Path, target: Path, limit: int, copies: int) -> tuple[int, int]:
    """Hard links (else copies) to the first JPEG files of every class in turn; how many links, and their bytes."""
    root = folder / "train" if (folder / "train").is_dir() else folder
    files = sorted(root.glob("*/*.jp*g"), key=lambda file: (file.name, file.parent.name))[:limit]
    if not files:
        raise click.UsageError(f"{folder} holds no .jpg or .jpeg files in folders of classes")
    for file in files:
        (target / file.parent.name).mkdir(parents=True, exist_ok=True)
        for copy in range(copies):
            link = target / file.parent.name / f"{file.stem}-{copy}{file.suffix}"
            try:
                os.link(file, link)
            except OSError:
                link.write_bytes(file.read_bytes())
    return copies * len(files), copies * sum(file.stat().st_size for file in files)


def measure(contender: str, source: Path, made: Path, workers: int) -> dict[str, float]:
    """One conversion in a process of its own; what it made is removed."""
    words = [sys.executable, __file__, str(source), "--one", contender, str(made), "--workers", str(workers)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{contender} failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    files = [file for file in made.rglob("*") if file.is_file()] if made.is_dir() else [made]
    found["bytes"] = sum(file.stat().st_blocks * 512 for file in files)
    subprocess.run(["rm", "-r", str(made)], check=True)
    return found


def convert_one(contender: str, source: Path, target: Path, workers: int) -> dict[str, float]:
    """Convert, and say how long it took, on how much memory."""
    tool, _, mode = contender.partition(" ")
    run = with_prunekd if tool == "prunekd" else with_ffcv
    work = run(source, target, mode, workers)
    held, started, before = memory_mb("VmRSS"), time.perf_counter(), cpu_seconds()
    work()
    seconds = time.perf_counter() - started
    for child in multiprocessing.active_children():
        child.join()  # only then is its processor time known
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds() - before,
        "peak_mb_added": memory_mb("VmHWM") - held,
    }


def with_prunekd(source: Path, target: Path, mode: str, workers: int) -> Any:
    """Our conversion, imports done."""
    from prunekd.store.jobs.convert import ConvertSettings, convert
    from prunekd.store.sources import open_source

    settings = ConvertSettings(mode=mode or "auto", workers=workers)
    return lambda: convert(open_source(source), target, settings)


def with_ffcv(source: Path, target: Path, mode: str, workers: int) -> Any:
    """FFCV's, as its documentation writes an image folder, imports done."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    def work() -> None:
        fields = {"image": RGBImageField(write_mode=mode), "label": IntField()}
        DatasetWriter(str(target), fields, num_workers=workers).from_indexed_dataset(ImageFolder(str(source)))

    return work


def memory_mb(name: str) -> float:
    """A figure of this process's memory, VmRSS now or VmHWM at its peak; ru_maxrss would count the parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


def cpu_seconds() -> float:
    """Processor seconds of this process and of those it started that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in used)


def row(contender: str, runs: list[dict[str, float]], count: int, size: int, workers: int) -> dict[str, Any]:
    """One row of the results."""
    return {
        "contender": contender,
        "images": count,
        "mean_bytes": round(size / count),
        "workers": workers,
        "passes": len(runs),
        **spread("images_per_second", [count / run["seconds"] for run in runs], 1),
        **spread("cpu_ms_per_image", [1000 * run["cpu_seconds"] / count for run in runs], 3),
        **spread("peak_mb_added", [run["peak_mb_added"] for run in runs], 1),
        "output_share": round(runs[0]["bytes"] / size, 3),
        **circumstances(),
    }


if __name__ == "__main__":
    main()
