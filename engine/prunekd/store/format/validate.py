"""Holds the index of a split against its `.beton` file, so that nothing is read on the word of a damaged one.

Every number that the two have in common is compared, and each must make sense: readers then use offsets, sizes and
dimensions without looking twice. Checksums are held against the payloads when these are read; keys are covered by the
checksums of the index's own pages. The tables pass through in blocks, so that the check takes next to no memory.
"""

from collections.abc import Iterator

import numpy as np

from prunekd.store.format.beton import ALLOCATION, MODE_JPEG, MODE_RAW, Header
from prunekd.store.format.beton_writer import FIELDS
from prunekd.store.format.jpeg import PILLOW_MAX_PIXELS
from prunekd.store.format.split import Split

BLOCK = 1 << 16  # rows


def validate_split(split: Split, header: Header, num_classes: int) -> None:
    """Raise ValueError, naming the file and what is wrong, unless the index of a split fits its file."""
    problem = _whole(split, header) or next(_blocks(split, header, num_classes), None) or _ids(split)
    if problem:
        raise ValueError(f"{split.path} and its index disagree: {problem}; convert the dataset again")


def _whole(split: Split, header: Header) -> str | None:
    count = len(split)
    if count != header.num_allocations:
        return f"{count} rows in the index, {header.num_allocations} payloads in the file"
    if header.fields != FIELDS:
        names = [f"{field.name} (type {field.type_id})" for field in header.fields]
        return f"the fields are {', '.join(names)}, not image (type 2), label (type 1), id (type 1)"
    if count == 0:
        return "it holds no samples"
    return None


def _blocks(split: Split, header: Header, num_classes: int) -> Iterator[str]:
    """What is wrong in any block of rows, the first thing first."""
    end = header.metadata_ptr + len(split) * header.metadata_type.itemsize  # of what lies before the next payload
    with open(header.path, "rb") as file:
        for start in range(0, len(split), BLOCK):
            rows = slice(start, min(start + BLOCK, len(split)))
            count = rows.stop - start
            file.seek(header.metadata_ptr + start * header.metadata_type.itemsize)
            metadata = np.fromfile(file, header.metadata_type, count=count)
            file.seek(header.alloc_table_ptr + start * ALLOCATION.itemsize)
            allocations = np.fromfile(file, ALLOCATION, count=count)
            if len(metadata) < count or len(allocations) < count:
                yield "the file ends within its tables"
                return
            for wrong, text in (
                *_nonsense(split, rows, end, header, num_classes),
                *_differences(split, rows, metadata, allocations),
            ):
                if wrong.any():
                    yield f"the {text.format(row=start + int(np.argmax(wrong)))}"
                    return
            end = int(split.pointers[rows.stop - 1] + split.sizes[rows.stop - 1])


def _nonsense(
    split: Split, rows: slice, end: int, header: Header, num_classes: int
) -> Iterator[tuple[np.ndarray, str]]:
    """Rows (bool) that cannot be, with what is wrong about them; `end` is that of the row before the first."""
    pointers, sizes = split.pointers[rows], split.sizes[rows]
    labels, modes = split.labels[rows], split.modes[rows]
    widths, heights = split.widths[rows].astype(np.int64), split.heights[rows]
    first = header.metadata_ptr + len(split) * header.metadata_type.itemsize
    yield sizes < 1, "payload of row {row} is empty"
    yield pointers < first, "payload of row {row} lies before the first page"
    # sizes and offsets are compared so that no sum can overflow
    too_far = (pointers > header.alloc_table_ptr) | (sizes > header.alloc_table_ptr - pointers)
    yield too_far, "payload of row {row} does not end within the file"
    ends = pointers + sizes
    yield pointers < np.concatenate(([end], ends[:-1])), "payload of row {row} overlaps the one before"
    page = header.page_size
    yield pointers // page != (ends - 1) // page, f"payload of row {{row}} straddles two pages of {page} bytes"
    yield (
        (labels < 0) | (labels >= num_classes),
        f"label of row {{row}} is not one of 0 to {num_classes - 1}, with {num_classes} classes",
    )
    yield (modes != MODE_JPEG) & (modes != MODE_RAW), "mode of row {row} is neither JPEG nor raw"
    pixels = widths * heights
    too_large = (widths < 1) | (heights < 1) | (pixels > PILLOW_MAX_PIXELS)
    yield too_large, f"image of row {{row}} is empty or larger than {PILLOW_MAX_PIXELS} pixels"
    yield (modes == MODE_RAW) & (sizes != 3 * pixels), "size of the raw image of row {row} is not width x height x 3"


def _differences(
    split: Split, rows: slice, metadata: np.ndarray, allocations: np.ndarray
) -> Iterator[tuple[np.ndarray, str]]:
    """Rows (bool) in which the file says something else than the index, with what."""
    image = metadata["image"]
    for name, column, there in (
        ("id", split.ids, metadata["id"]),
        ("label", split.labels, metadata["label"]),
        ("offset", split.pointers, image["data_ptr"]),
        ("offset", split.pointers, allocations["ptr"]),
        ("size", split.sizes, allocations["size"]),
        ("mode", split.modes, image["mode"]),
        ("width", split.widths, image["width"]),
        ("height", split.heights, image["height"]),
    ):
        here = column[rows]
        yield here != there.astype(here.dtype), f"{name} of row {{row}} is another in the file"


def _ids(split: Split) -> str | None:
    if split.ids.min() < 0:
        return f"the id of row {int(np.argmin(split.ids))} is negative"
    if split.ids_ascend:
        return None
    ordered = np.sort(split.ids)
    twice = ordered[1:] == ordered[:-1]
    return f"the id {int(ordered[int(np.argmax(twice))])} is there twice" if twice.any() else None
