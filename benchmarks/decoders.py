"""Which JPEG decoder costs the least processor time? The measurement behind simplejpeg and the native reader's regions.

    python benchmarks/decoders.py FOLDER [--images 200] [--passes 7]

Decodes JPEG files that lie in memory to RGB: in full, at half size in the DCT domain, and the middle quarter of the
area. `pillow regions` is prunekd._native.jpeg_regions with Pillow's own library. Every decoder decodes an image before
the next image's turn, each time another one first, so that another process on the machine slows all of them alike. The
clock is processor time of all threads of this process, with the decoders held to one thread. A pass is
the mean over all images; the row holds the median, the least and the greatest of the passes, and how far the pixels
are from Pillow's. OpenCV joins if it is installed. Rows are appended to benchmarks/results/decoders.csv.
"""

import csv
import importlib
import importlib.metadata
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL
import simplejpeg
import torch
import torchvision
from PIL import Image

from prunekd._native.jpeg_regions import RegionDecoder
from prunekd._native.machine_code import FULL
from prunekd.common.machine import describe_machine

RESULTS = Path(__file__).parent / "results" / "decoders.csv"
Decoder = Callable[[bytes], np.ndarray]


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--images", "limit", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--passes", type=click.IntRange(min=1), default=7, show_default=True)
def main(folder: Path, limit: int, passes: int) -> None:
    """Measure on the first --images JPEG files under FOLDER and append; see the module's text."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:limit]
    if not files:
        raise click.UsageError(f"{folder} holds no .jpg or .jpeg files")
    images = [path.read_bytes() for path in files]
    torch.set_num_threads(1)
    decoders, versions = contenders()
    measure(images[:10], decoders, 1)  # warm-up: lazy imports, allocators, caches
    timings = measure(images, decoders, passes)
    shapes = [simplejpeg.decode_jpeg_header(data)[:2] for data in images]
    machine = describe_machine()
    rows = [
        {
            "date": machine["started"],
            "decoder": name,
            "scale": scale,
            "version": versions[name.split()[0]],
            "images": len(images),
            "mean_bytes": round(statistics.mean(map(len, images))),
            "mean_pixels": round(statistics.mean(height * width for height, width in shapes)),
            "cpu_ms_per_image_median": round(statistics.median(times), 4),
            "cpu_ms_per_image_min": round(min(times), 4),
            "cpu_ms_per_image_max": round(max(times), 4),
            "passes": passes,
            "mean_difference_to_pillow": round(difference(images[:20], decoders, name, scale), 3),
            "processor": machine["processor"],
            "cores": machine["cores"],
            "python": machine["python"],
            "command": machine["command"],
        }
        for (name, scale), times in timings.items()
    ]
    append(rows)
    for row in rows:
        click.echo(
            f"{row['scale']:<5} {row['decoder']:<22} {row['cpu_ms_per_image_median']:.3f} ms "
            f"({row['cpu_ms_per_image_min']:.3f} to {row['cpu_ms_per_image_max']:.3f}), "
            f"differs from Pillow by {row['mean_difference_to_pillow']}"
        )


def contenders() -> tuple[dict[tuple[str, str], Decoder], dict[str, str]]:
    """Decoders by (name, scale), JPEG bytes -> uint8 (h, w, 3) RGB, and their versions by the name's first word."""

    def pillow(data: bytes) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def pillow_half(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (image.width // 2, image.height // 2))
        return np.asarray(image.convert("RGB"))

    def vision(data: bytes) -> np.ndarray:
        tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return torchvision.io.decode_jpeg(tensor, mode=torchvision.io.ImageReadMode.RGB).permute(1, 2, 0).numpy()

    def simple_half(data: bytes) -> np.ndarray:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return simplejpeg.decode_jpeg(data, min_height=-(-height // 2), min_width=-(-width // 2))

    region = RegionDecoder()

    def ours(data: bytes, scale: int = FULL) -> np.ndarray:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return region.decode(data, width, height, (0, 0, -(-width * scale // FULL), -(-height * scale // FULL)), scale)

    def ours_half(data: bytes) -> np.ndarray:
        return ours(data, FULL // 2)

    def ours_quarter(data: bytes) -> np.ndarray:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return region.decode(data, width, height, (width // 4, height // 4, width // 2, height // 2))

    def simple_quarter(data: bytes) -> np.ndarray:
        pixels = simplejpeg.decode_jpeg(data)
        height, width, _ = pixels.shape
        return pixels[height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2]

    def pillow_quarter(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        left, top, width, height = image.width // 4, image.height // 4, image.width // 2, image.height // 2
        return np.asarray(image.convert("RGB").crop((left, top, left + width, top + height)))

    found: dict[tuple[str, str], Decoder] = {
        ("pillow", "full"): pillow,
        ("torchvision", "full"): vision,
        ("simplejpeg", "full"): simplejpeg.decode_jpeg,
        ("simplejpeg fastdct", "full"): lambda data: simplejpeg.decode_jpeg(data, fastdct=True, fastupsample=True),
        ("pillow regions", "full"): ours,
        ("pillow", "half"): pillow_half,
        ("simplejpeg", "half"): simple_half,
        ("pillow regions", "half"): ours_half,
        ("pillow", "middle"): pillow_quarter,
        ("simplejpeg", "middle"): simple_quarter,
        ("pillow regions", "middle"): ours_quarter,
    }
    versions = {
        "pillow": PIL.__version__,
        "torchvision": torchvision.__version__,
        "simplejpeg": importlib.metadata.version("simplejpeg"),
    }
    try:
        cv2: Any = importlib.import_module("cv2")
    except ImportError:
        return found, versions
    cv2.setNumThreads(0)

    def opencv(flag: int) -> Decoder:
        return lambda data: cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), flag), cv2.COLOR_BGR2RGB)

    # Without the flag OpenCV would also turn the image as EXIF says, which the others do not.
    found["opencv", "full"] = opencv(cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    found["opencv", "half"] = opencv(cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION)
    versions["opencv"] = cv2.__version__
    return found, versions


def measure(
    images: list[bytes], decoders: dict[tuple[str, str], Decoder], passes: int
) -> dict[tuple[str, str], list[float]]:
    """Processor milliseconds per image of every pass, by decoder."""
    names = list(decoders)
    timings: dict[tuple[str, str], list[float]] = {name: [] for name in names}
    for _ in range(passes):
        spent = dict.fromkeys(names, 0.0)
        for k, data in enumerate(images):
            for name in names[k % len(names) :] + names[: k % len(names)]:
                started = time.process_time()
                decoders[name](data)
                spent[name] += time.process_time() - started
        for name in names:
            timings[name].append(1000 * spent[name] / len(images))
    return timings


def difference(images: list[bytes], decoders: dict[tuple[str, str], Decoder], name: str, scale: str) -> float:
    """Mean absolute difference of the pixels (0 to 255) to Pillow's at the same scale."""
    values = []
    for data in images:
        ours, pillows = decoders[name, scale](data), decoders["pillow", scale](data)
        values.append(np.abs(ours.astype(int) - pillows).mean())  # fails where the shapes differ
    return float(np.mean(values))


def append(rows: list[dict[str, Any]]) -> None:
    """Append to the results, with a header if the file is new."""
    RESULTS.parent.mkdir(exist_ok=True)
    fresh = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
