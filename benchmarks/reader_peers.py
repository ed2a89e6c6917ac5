"""The contenders of benchmarks/readers.py: ours, FFCV and DALI and torchvision by their own books, and the bare limit.

A contender is made from a Job and can run epochs of its own random order and random resized crops, mirrored with
probability 1/2, that end as uint8 batches in memory. Each imports its library when it is made.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prunekd.input import READERS, ViewSettings, open_reader, train_plan
from prunekd.store import Store, open_store
from prunekd.store.format.beton import read_alloc_table, read_header
from prunekd.store.jobs.compact import compact
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every contender does: `batch_size` images of `side` x `side` pixels at a time, of the samples `ids`.

    Attributes:
        work: folder with what `prepare` made.
        ids: positions in the order of the image folder (classes sorted, files sorted), int64.
        threads: decoding threads or processes.
    """

    work: Path
    ids: np.ndarray
    batch_size: int
    side: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """epoch: number -> sizes of the batches as they arrive; files: what is read; payload: bytes of the samples in them;
    unmap: forget mapped pages, which could not be dropped from the cache otherwise; asked: bytes asked for so far."""

    epoch: Callable[[int], Iterable[int]]
    files: list[Path]
    payload: int
    unmap: Callable[[], None] = field(default=lambda: None)
    asked: Callable[[], int] | None = None


def prepare(folder: Path, copies: int, work: Path) -> None:
    """Make what the contenders read: our store, one in rank order, a copy for FFCV, FFCV's own file, if not there yet.

    The copy is there because the kernel drops no pages from its cache that another process has mapped.

    Args:
        copies: the dataset holds every photograph so many times under different names.
    """
    for path in sorted((folder / "train").glob("*/*")):
        for k in range(copies):
            link = work / "photographs" / "train" / path.parent.name / f"{k}-{path.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path)
    if not (work / "store").exists():
        convert(open_source(work / "photographs"), work / "store", ConvertSettings())
    store = open_store(work / "store")
    if not (work / "compacted").exists():
        compact(store, ranking(len(store.split("train"))), work / "compacted")
    copy = work / "copy.beton"
    if not copy.exists():
        copy.write_bytes(store.split("train").path.read_bytes())
    own = work / "own.beton"
    if not own.exists():
        write_by_ffcv(store, own)


def ranking(count: int) -> np.ndarray:
    """Ids of which every keep ratio keeps a prefix, int64 (count,)."""
    return np.random.default_rng(1).permutation(count)


def write_by_ffcv(store: Store, path: Path) -> None:
    """FFCV's file by its book: JPEG of quality 90, re-encoded by its DatasetWriter."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from PIL import Image

    files, labels = listing(store)

    class Dataset:
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, k: int) -> tuple[Any, int]:
            return Image.open(files[k]).convert("RGB"), labels[k]

    fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=90), "label": IntField()}
    unfinished = path.with_suffix(".unfinished")
    DatasetWriter(str(unfinished), fields, num_workers=1).from_indexed_dataset(Dataset())
    unfinished.rename(path)


def listing(store: Store) -> tuple[list[Path], list[int]]:
    """Files of the image folder the store was made from, and their labels, by id."""
    split = store.split("train")
    folder = Path(store.source["folders"]["train"])
    order = np.argsort(split.ids)
    keys = split.keys()
    return [folder / keys[k] for k in order], split.labels[order].tolist()


def ours(name: str, where: str = "store") -> Callable[[Job], Contender]:
    """One of our readers."""

    def make(job: Job) -> Contender:
        store = open_store(job.work / where)
        split = store.split("train")
        reader = open_reader(name, store, "train", workers=job.threads)
        view = ViewSettings(kind="random_resized_crop", size=job.side, scale=SCALE, ratio=RATIO)

        def epoch(number: int) -> Iterator[int]:
            plan = train_plan(split, ids=job.ids, seed=0, epoch=number, batch_size=job.batch_size, view=view)
            for batch in reader.epoch(plan):
                yield len(batch.ids)

        if name == "torch":
            return Contender(epoch=epoch, asked=lambda: reader.bytes_read, **folder_files(store, job))
        payload = int(split.sizes[split.rows(job.ids)].sum())
        return Contender(epoch=epoch, files=[split.path], payload=payload, asked=lambda: reader.bytes_read)

    return make


def limit(job: Job) -> Contender:
    """A plain loop over bytes in memory: what decoding and resizing alone cost a thread."""
    import torch

    from prunekd.input.readers.decode import ViewDecoder

    torch.set_num_threads(1)
    split = open_store(job.work / "store").split("train")
    rows = split.rows(job.ids)
    decoder = ViewDecoder(split, payloads := split.payloads())
    stored = {row: payloads.read(row) for row in rows.tolist()}
    out = np.empty((job.batch_size, job.side, job.side, 3), np.uint8)
    view = ViewSettings(kind="random_resized_crop", size=job.side, scale=SCALE, ratio=RATIO)

    def epoch(number: int) -> Iterator[int]:
        plan = train_plan(split, ids=job.ids, seed=0, epoch=number, batch_size=job.batch_size, view=view)
        for k in range(plan.end_batch):
            batch = plan.batch(k)
            boxes, flips = batch.boxes.tolist(), batch.flips.tolist()
            for i, row in enumerate(batch.rows.tolist()):
                decoder.decode(stored[row], row, boxes[i], flips[i], out[i])
            yield len(batch.ids)

    return Contender(epoch=epoch, files=[split.path], payload=sum(map(len, stored.values())))


def ffcv(file: str, order: str, os_cache: bool) -> Callable[[Job], Contender]:
    """FFCV by its book: RandomResizedCropRGBImageDecoder, RandomHorizontalFlip, ToTensor, ToTorchImage."""

    def make(job: Job) -> Contender:
        from ffcv.fields.basics import IntDecoder
        from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

        path = job.work / f"{file}.beton"
        header = read_header(path)
        image: list[Any] = [
            RandomResizedCropRGBImageDecoder((job.side, job.side), SCALE, RATIO),
            RandomHorizontalFlip(),
            ToTensor(),
            ToTorchImage(),
        ]
        pipelines = {"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]}
        loader = Loader(
            str(path),
            batch_size=job.batch_size,
            num_workers=job.threads,
            os_cache=os_cache,
            order=OrderOption[order],
            indices=job.ids,
            seed=0,
            drop_last=True,
            pipelines=pipelines | ({"id": None} if len(header.fields) > 2 else {}),
        )

        def unmap() -> None:
            import mmap

            mapped = loader.memory_manager.context.mmap if os_cache else None
            if mapped is not None:
                mapped._mmap.madvise(mmap.MADV_DONTNEED)

        table = read_alloc_table(header)
        payload = int(table["size"][np.isin(table["sample_id"].astype(np.int64), job.ids)].sum())
        return Contender(
            epoch=lambda number: (len(batch[0]) for batch in loader), files=[path], payload=payload, unmap=unmap
        )

    return make


def folder_files(store: Store, job: Job) -> dict[str, Any]:
    """The kept files of the image folder and their bytes, for a Contender."""
    paths, _ = listing(store)
    kept = [paths[k] for k in job.ids]
    return {"files": kept, "payload": sum(os.path.getsize(path) for path in kept)}


def dali_file(job: Job) -> Contender:
    """DALI on the CPU by its book: readers.file, decoders.image_random_crop, resize, flip."""
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    store = open_store(job.work / "store")
    paths, labels = listing(store)

    @pipeline_def(batch_size=job.batch_size, num_threads=job.threads, device_id=None, seed=0)
    def pipeline() -> Any:
        data, label = fn.readers.file(
            files=[str(paths[k]) for k in job.ids],
            labels=[labels[k] for k in job.ids],
            random_shuffle=True,
            name="reader",
        )
        images = fn.decoders.image_random_crop(
            data, device="cpu", random_area=SCALE, random_aspect_ratio=RATIO, num_attempts=10
        )
        images = fn.resize(images, resize_x=job.side, resize_y=job.side)
        return fn.flip(images, horizontal=fn.random.coin_flip()), label

    iterator = DALIGenericIterator(
        [pipeline()],
        ["images", "labels"],
        reader_name="reader",
        auto_reset=True,
        last_batch_policy=LastBatchPolicy.DROP,
    )

    def epoch(number: int) -> Iterator[int]:
        for batch in iterator:
            yield len(batch[0]["images"])
        # By now DALI decodes the next epoch's first batches, as it decoded this one's during the last: they take each
        # other's place in the account, or a short epoch would cost nearly nothing.
        wait_for_idleness()

    return Contender(epoch=epoch, **folder_files(store, job))


def wait_for_idleness() -> None:
    """Return when this process's threads have done next to nothing for 5 ms."""
    used = -1.0
    while time.process_time() - used > 0.001:
        used = time.process_time()
        time.sleep(0.005)


def torchvision(decoder: str) -> Callable[[Job], Contender]:
    """torchvision's ImageFolder recipe: PIL images, or its own decoder and tensors."""

    def make(job: Job) -> Contender:
        import torch
        from torchvision import io
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import v2

        store = open_store(job.work / "store")
        transforms: list[Any] = [
            v2.RandomResizedCrop(job.side, SCALE, RATIO, antialias=True),
            v2.RandomHorizontalFlip(),
        ]
        more: dict[str, Any] = {}
        if decoder == "pil":
            transforms.append(v2.PILToTensor())
        else:
            more["loader"] = partial(io.decode_image, mode=io.ImageReadMode.RGB)  # takes a path, too
        data = ImageFolder(store.source["folders"]["train"], transform=v2.Compose(transforms), **more)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.Subset(data, job.ids.tolist()),
            batch_size=job.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=job.threads,
            persistent_workers=True,
        )
        return Contender(epoch=lambda number: (len(b[0]) for b in loader), **folder_files(store, job))

    return make


CONTENDERS: dict[str, Callable[[Job], Contender]] = {
    "limit": limit,
    **{name: ours(name) for name in READERS},
    "native compacted": ours("native", where="compacted"),
    "FFCV RANDOM": ffcv("copy", "RANDOM", os_cache=True),
    "FFCV QUASI_RANDOM": ffcv("copy", "QUASI_RANDOM", os_cache=False),
    "FFCV RANDOM own file": ffcv("own", "RANDOM", os_cache=True),
    "DALI": dali_file,
    "torchvision PIL": torchvision("pil"),
    "torchvision io": torchvision("io"),
}
