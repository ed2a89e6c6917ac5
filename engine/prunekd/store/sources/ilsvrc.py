"""The source `ilsvrc`: the archives of ILSVRC2012 as they are downloaded, read in place.

`ILSVRC2012_img_train.tar` is an archive of archives, one per class; images are read at their offsets in the outer file.
Ids, labels, keys and bytes are those of the image folder that one gets by unpacking everything the usual way
(`train/n01440764/n01440764_10026.JPEG`, `val/n01751748/ILSVRC2012_val_00000001.JPEG`).
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from prunekd.store.sources.ilsvrc_labels import read_val_labels
from prunekd.store.sources.imagefolder import EXTENSIONS, is_utf8
from prunekd.store.sources.packed import Packed, Pieces, PiecesBuilder
from prunekd.store.sources.tars import Member, members

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


def recognise(path: Path) -> str:
    """Why a path is taken for this source; empty if it is not."""
    return f"there is {TRAIN_TAR}" if (_root(path) / TRAIN_TAR).is_file() else ""


def open_ilsvrc(path: Path) -> Packed:
    """Open the folder with the archives, or the training archive itself.

    `val` is there if `ILSVRC2012_img_val.tar` is; its labels are found as `read_val_labels` says. Members that are
    links or whose names lead elsewhere are quarantined.

    Raises:
        ValueError: an archive is missing or damaged, or the labels are missing or do not fit the images.
    """
    root = _root(path)
    train, val = root / TRAIN_TAR, root / VAL_TAR
    if not train.is_file():
        raise ValueError(f"{root} lacks {TRAIN_TAR}; put the archives of ILSVRC2012 into one folder")
    ignored: Counter[str] = Counter()
    archives = _class_archives(train, ignored)
    classes = sorted(archives)
    pieces = {"train": _train(train, [archives[name] for name in classes], classes, ignored)}
    if val.is_file():
        pieces["val"] = _val(val, root, classes, ignored)
    return Packed("ilsvrc", path, classes, pieces, ignored)


def _root(path: Path) -> Path:
    return path.parent if path.name == TRAIN_TAR else path


def _class_archives(train: Path, ignored: Counter[str]) -> dict[str, Member]:
    """The inner archives by the name of their class."""
    found: dict[str, Member] = {}
    for member in members(train):
        name = PurePosixPath(member.name)
        if name.suffix != ".tar":
            ignored[name.suffix or "no extension"] += 1
        elif member.problem or len(name.parts) != 1 or not is_utf8(name.stem):
            raise ValueError(f"{train} holds the member {member.name!r}; its archives must be named CLASS.tar")
        else:
            found[name.stem] = member
    if not found:
        raise ValueError(f"{train} holds no archives CLASS.tar; it is not the training archive of ILSVRC2012")
    return found


def _train(train: Path, archives: list[Member], classes: list[str], ignored: Counter[str]) -> Pieces:
    builder = PiecesBuilder(files=(train,))
    for label, (name, archive) in enumerate(zip(classes, archives, strict=True)):
        inner = members(train, archive.offset, archive.offset + archive.size)
        for file, member in _images(inner, ignored):
            builder.add(f"{name}/{file}", label, 0, member)
    if not builder.keys:
        raise ValueError(f"{train} holds no images")
    return builder.build()


def _val(val: Path, root: Path, classes: list[str], ignored: Counter[str]) -> Pieces:
    images = _images(members(val), ignored)
    if not images:
        raise ValueError(f"{val} holds no images")
    synsets = read_val_labels(root, [PurePosixPath(file).stem for file, _ in images])
    numbers = {name: label for label, name in enumerate(classes)}
    by_class: list[list[tuple[str, Member]]] = [[] for _ in classes]
    for file, member in images:
        by_class[_label(file, synsets, numbers)].append((file, member))
    builder = PiecesBuilder(files=(val,))
    for label, found in enumerate(by_class):
        for file, member in found:
            builder.add(f"{classes[label]}/{file}", label, 0, member)
    return builder.build()


def _label(file: str, synsets: Mapping[str, str], numbers: Mapping[str, int]) -> int:
    stem = PurePosixPath(file).stem
    if stem not in synsets:
        raise ValueError(f"the validation labels say nothing of {file}; give the labels of all images of {VAL_TAR}")
    if synsets[stem] not in numbers:
        raise ValueError(f"the validation labels give {file} the class {synsets[stem]!r}, which {TRAIN_TAR} lacks")
    return numbers[synsets[stem]]


def _images(found: Iterable[Member], ignored: Counter[str]) -> list[tuple[str, Member]]:
    """Images by name, sorted as the source `imagefolder` sorts them; of members with one name the last one counts."""
    images: dict[str, Member] = {}
    for member in found:
        extension = os.path.splitext(member.name)[1].lower()
        if member.name.rpartition("/")[2].startswith("."):
            ignored["hidden"] += 1
        elif extension not in EXTENSIONS:
            ignored[extension or "no extension"] += 1
        else:
            ignored["replaced by a later member"] += member.name in images
            images[member.name] = member
    ignored += Counter()  # drops zero counts
    return [(name, images[name]) for name in sorted(images, key=lambda name: name.rpartition("/")[::2])]
