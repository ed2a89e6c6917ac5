"""The source `webdataset`: tar shards whose members belong together by name, read in place.

Members of one sample follow each other and share their name up to the first dot after the last slash: `a/1.jpg` and
`a/1.cls`. Ids do not depend on how samples are spread over shards: they are sorted by class, then by name.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunekd.store.sources.imagefolder import EXTENSIONS
from prunekd.store.sources.labels import number_labels
from prunekd.store.sources.layout import DEFAULT, Layout
from prunekd.store.sources.packed import Packed, Pieces
from prunekd.store.sources.shards import by_split, find_shards
from prunekd.store.sources.tars import Member, members, read_extent

_LABEL_FIELDS = ("label", "cls", "class")  # of a .json member
_MAX_LABEL_BYTES = 1 << 20
_NUMBER = re.compile("-?[0-9]{1,9}")


def open_webdataset(path: Path, layout: Layout = DEFAULT) -> Packed:
    """Open one shard, a folder of shards, or a pattern such as `shards/train-{000..127}.tar`.

    Shards are told apart by the words `train`, `val` and so on in their names, see `by_split`. Images are members
    `.jpg`, `.jpeg`, `.png` and what else `imagefolder` reads. The label is in `.cls` (a number, or the name of the
    class) or in `.json` under `label`, `cls` or `class`. Numbers are the labels and name the classes; names are
    numbered in sorted order; the two must not be mixed. The key of an image is the name of its member, after that of
    its shard where two members have one name. Samples without an image or a label are counted in `ignored`; those whose
    image is a link or has a name that leads out of the archive are quarantined.

    Raises:
        ValueError: no shards, a damaged one, no sample in a split, or labels that do not fit.
    """
    root, shards = find_shards(path, ".tar")
    ignored: Counter[str] = Counter()
    splits, notes = by_split(root, shards, ignored, layout)
    found = {split: _list(files, ignored) for split, files in splits.items()}
    for split, samples in found.items():
        if not samples:
            raise ValueError(f"the shards of {split} in {root} hold no image with a label; ignored: {dict(ignored)}")
    stated = {split: [s.label for s in samples] for split, samples in found.items()}
    classes, numbers = number_labels(path, stated, as_names=layout.label_names)
    pieces = {split: _pieces(found[split], numbers[split], splits[split], root) for split in splits}
    return Packed("webdataset", path, classes, pieces, ignored, layout, notes)


@dataclass(frozen=True, slots=True)
class _Sample:
    shard: int
    image: Member
    label: int | str


def _list(shards: Sequence[Path], ignored: Counter[str]) -> list[_Sample]:
    found = []
    for number, shard in enumerate(shards):
        for group in _groups(shard):
            image = next((member for extension, member in group if f".{extension}" in EXTENSIONS), None)
            label = next((value for value in (_label(shard, *item) for item in group) if value is not None), None)
            if image is None:
                ignored["sample without an image"] += 1
            elif label is None:
                ignored["sample without a label"] += 1
            else:
                found.append(_Sample(number, image, label))
    return found


def _groups(shard: Path) -> Iterator[list[tuple[str, Member]]]:
    """(extension, member) of each sample of a shard."""
    group: list[tuple[str, Member]] = []
    current = None
    for member in members(shard):
        folder, slash, file = member.name.rpartition("/")
        stem, _, extension = file.partition(".")
        if not stem or stem.startswith("__"):
            continue  # hidden, or about the shard as a whole
        if group and folder + slash + stem != current:
            yield group
            group = []
        current = folder + slash + stem
        group.append((extension.lower(), member))
    if group:
        yield group


def _label(shard: Path, extension: str, member: Member) -> int | str | None:
    """The label that a member holds: a number, a name, or None."""
    if extension not in ("cls", "json") or member.unreadable or member.size > _MAX_LABEL_BYTES:
        return None
    data = read_extent(shard, member.offset, member.size)
    try:
        text = data.decode().strip()
        value = text if extension == "cls" else _field(json.loads(text))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return None
    if isinstance(value, str):
        value = int(value) if _NUMBER.fullmatch(value) else value
    return value if value != "" else None


def _field(values: object) -> int | str | None:
    for name in _LABEL_FIELDS:
        value = values.get(name) if isinstance(values, dict) else None
        if isinstance(value, int | str) and not isinstance(value, bool):
            return value
    return None


def _pieces(samples: list[_Sample], labels: np.ndarray, shards: Sequence[Path], root: Path) -> Pieces:
    keys = [sample.image.name for sample in samples]
    if len(set(keys)) < len(keys):
        keys = [f"{os.path.relpath(shards[s.shard], root)}/{key}" for s, key in zip(samples, keys, strict=True)]
    by_name = sorted(range(len(keys)), key=lambda k: keys[k].rpartition("/")[::2])
    order = [by_name[k] for k in np.argsort(labels[by_name], kind="stable").tolist()]
    return Pieces(
        keys=[keys[k] for k in order],
        labels=labels[order],
        files=tuple(shards),
        numbers=np.array([samples[k].shard for k in order], dtype=np.int32),
        offsets=np.array([samples[k].image.offset for k in order], dtype=np.int64),
        sizes=np.array([samples[k].image.size for k in order], dtype=np.int64),
        refused={row: samples[k].image.problem for row, k in enumerate(order) if samples[k].image.problem},
    )
