"""Which JPEG decoder should the readers use? CPU milliseconds per image of the well-kept ones, one thread.

The decoders take turns over the same files in memory; a row holds the median and the spread of the turns. Rows are
appended to benchmarks/results/decoders.csv. OpenCV is measured where it happens to be installed.

    python benchmarks/decoders.py FOLDER
"""

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import simplejpeg
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from prunekd.common.machine import describe_machine, installed_version

RESULTS = Path(__file__).parent / "results" / "decoders.csv"
Decoder = Callable[[bytes], object]


def decoders() -> dict[str, tuple[Decoder, str]]:
    """Name -> (decoder from bytes to RGB pixels, version)."""
    found: dict[str, tuple[Decoder, str]] = {
        "pillow": (lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), Image.__version__),
        "torchvision": (
            lambda data: decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB),
            installed_version("torchvision") or "",
        ),
        "simplejpeg": (lambda data: simplejpeg.decode_jpeg(data, "RGB"), installed_version("simplejpeg") or ""),
        "simplejpeg half size": (
            lambda data: simplejpeg.decode_jpeg(data, "RGB", min_height=1, min_width=1, min_factor=2),
            installed_version("simplejpeg") or "",
        ),
    }
    try:
        import cv2
    except ImportError:
        return found
    cv2.setNumThreads(0)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    half = cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION
    found["opencv"] = (lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), flags), cv2.__version__)
    found["opencv half size"] = (lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), half), cv2.__version__)
    return found


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--images", default=300, show_default=True)
@click.option("--turns", default=9, show_default=True)
def main(folder: Path, images: int, turns: int) -> None:
    """Measure the JPEGs under FOLDER and append the rows."""
    files = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:images]]
    if not files:
        raise click.UsageError(f"{folder} holds no .jpg files")
    found = decoders()
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(turns):
        for name, (decode, _version) in found.items():
            started = time.process_time()
            for data in files:
                decode(data)
            seconds[name].append((time.process_time() - started) / len(files))
    machine = describe_machine()
    fresh = not RESULTS.exists()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for name, (_, version) in found.items():
            low, middle, high = np.percentile(seconds[name], (10, 50, 90)) * 1e3
            row = {
                "date": machine["started"],
                "folder": folder.name,
                "images": len(files),
                "mean_bytes": round(sum(map(len, files)) / len(files)),
                "decoder": name,
                "version": version,
                "cpu_ms_median": round(middle, 4),
                "cpu_ms_p10": round(low, 4),
                "cpu_ms_p90": round(high, 4),
                "processor": machine["processor"],
                "command": machine["command"],
            }
            click.echo(f"{name}: {middle:.3f} ms ({low:.3f}-{high:.3f})")
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                if fresh:
                    writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
