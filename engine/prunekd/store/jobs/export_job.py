"""What is to be exported: samples of a store as files of bytes, with the labels their readers are to see."""

import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from prunekd.store.format.beton import MODE_RAW
from prunekd.store.format.store import Split, Store
from prunekd.store.jobs.containers import Exported

Progress = Callable[[int, int], None]


class Job:
    """Samples of a split in the order in which they are exported.

    Args:
        ids: int64 (k,), each once; weights: float32 (k,).
        label: `class` or `id`, what readers are to see as label; None to leave it to the format.
        progress: called with samples done and in all.

    Raises:
        ValueError: no ids, an id twice, or one that is not in the split.
    """

    def __init__(
        self,
        store: Store,
        split: Split,
        ids: np.ndarray,
        weights: np.ndarray | None,
        label: str | None,
        progress: Progress,
    ) -> None:
        if not len(ids):
            raise ValueError("there are no samples to export")
        if len(np.unique(ids)) < len(ids):
            raise ValueError("a sample is there twice; a subset has each id once")
        self.store, self.split, self.label, self.progress = store, split, label, progress
        self.ids, self.rows = ids, split.rows(ids)
        self.weights = None if weights is None else np.asarray(weights, dtype=np.float32)

    def shown(self, default: str) -> list[int]:
        """The labels readers are to see, by position; `default` where the job leaves open which."""
        return (self.ids if (self.label or default) == "id" else self.split.labels[self.rows]).tolist()  # type: ignore[no-any-return]

    def samples(self, default_label: str) -> Iterator[Exported]:
        """Read, check and yield all samples in order, raw ones as PNG; ValueError for a corrupt one."""
        keys, labels = self.split.keys(self.rows), self.shown(default_label)
        with self.split.payloads() as payloads:
            for k, row in enumerate(self.rows.tolist()):
                payload = payloads.read(row)
                if zlib.crc32(payload) != self.split.crc32[row]:
                    raise ValueError(
                        f"sample {self.ids[k]} ({keys[k]}) in {self.split.path} is corrupt (its checksum differs); "
                        "convert the dataset again"
                    )
                extension = "jpg"
                if self.split.modes[row] == MODE_RAW:
                    shape = int(self.split.heights[row]), int(self.split.widths[row]), 3
                    payload, extension = _png(np.frombuffer(payload, np.uint8).reshape(shape)), "png"
                yield Exported(int(self.ids[k]), labels[k], keys[k], payload, extension)
                self.progress(k + 1, len(self.rows))

    def source_files(self, purpose: str) -> list[Path]:
        """The files of the image folder the store was made from, by position; ValueError if they are not there."""
        folders = self.store.source.get("folders", {})
        if self.split.name not in folders:
            raise ValueError(
                f"{purpose} needs a store made from an image folder, and this one was made from "
                f"{self.store.source.get('kind')} {self.store.source.get('path')}: export with --format folder, whose "
                "file_list.txt names the files it writes"
            )
        files = [Path(folders[self.split.name]).absolute() / key for key in self.split.keys(self.rows)]
        for file in files:
            if not file.is_file():
                raise ValueError(f"{file}, from which the store was made, is gone: export with --format folder")
        return files


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
