"""Which folders of an image folder are its splits."""

import os
import re
from collections import Counter
from errno import EACCES, ELOOP, ENAMETOOLONG, ENOTDIR
from pathlib import Path

from prunekd.store.sources.layout import HERE, NONE, ROLES, TEST, TEST_IS_VAL, Layout
from prunekd.store.sources.source import TRAIN, VAL

_CLASSES = "give --train-split . if every folder is a class"


def split_folders(root: Path, layout: Layout, ignored: Counter[str]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The folder of each split, and what a user should be told about the choice.

    Folders beside the splits are counted in `ignored`. Where no folder has a split's name, `root` itself is `train`.

    Raises:
        ValueError: the names leave open which folder is which split; the message names the option that settles it.
    """
    if layout.train_split == HERE:
        return {TRAIN: root}, ()
    names = visible_folders(root)
    roles = {role: [name for name in names if ROLES.get(name.lower()) == role] for role in (TRAIN, VAL, TEST)}
    chosen: dict[str, str] = {}
    if layout.train_split is not None:
        chosen[TRAIN] = _named(root, layout.train_split, "--train-split", names)
    elif any(roles.values()) or layout.val_split not in (None, NONE):
        chosen[TRAIN] = _train(root, roles, names)
    else:
        _check_no_lookalikes(root, names)
        return {TRAIN: root}, ()
    val, notes = _val(root, layout, roles, names)
    if val is not None:
        chosen[VAL] = val
    ignored.update(f"folder {name} beside {chosen[TRAIN]}" for name in names if name not in chosen.values())
    return {split: root / name for split, name in chosen.items()}, notes


def visible_folders(path: Path) -> list[str]:
    """The names of the folders in a folder, hidden ones left out, sorted."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_folder(entry))


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder or a link to one; a link that leads nowhere, as to itself, is none."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno not in (ELOOP, EACCES, ENAMETOOLONG, ENOTDIR):
            raise
        return False  # if it looks like an image, reading it will tell what is wrong


def check_no_splits_below(path: Path, names: set[str]) -> None:
    """Raise ValueError if the folders `names` in the class folder `path` are a training split and another one."""
    roles = {ROLES[name.lower()]: name for name in sorted(names) if name.lower() in ROLES}
    if TRAIN in roles and len(roles) > 1:
        found = " and ".join(roles.values())
        raise ValueError(
            f"{path} would be a class, but holds the folders {found}; if it is the dataset, convert {path}. Splits lie "
            f"above classes, as train/CLASS/*; {_CLASSES} whose images lie in these folders"
        )


def _train(root: Path, roles: dict[str, list[str]], names: list[str]) -> str:
    if len(roles[TRAIN]) > 1:
        raise ValueError(f"{root} has the folders {' and '.join(roles[TRAIN])}; choose one with --train-split NAME")
    if not roles[TRAIN]:
        found = [*roles[VAL], *roles[TEST]]
        raise ValueError(
            f"{root} has {f'a folder {found[0]}' if found else 'a validation split'} but none named train, only "
            f"{_few(names)}; name the training images with --train-split NAME, or {_CLASSES}"
        )
    name = roles[TRAIN][0]
    if not visible_folders(root / name):
        raise ValueError(
            f"{root / name} holds no class folders; put the images of each class into a folder of its own, or "
            f"{_CLASSES}"
        )
    return name


def _val(
    root: Path, layout: Layout, roles: dict[str, list[str]], names: list[str]
) -> tuple[str | None, tuple[str, ...]]:
    """The folder of the validation split if there is one, and what to tell about it."""
    if layout.val_split == NONE:
        return None, ()
    if layout.val_split is not None:
        return _named(root, layout.val_split, "--val-split", names), ()
    found = [name for name in roles[VAL] if name != layout.train_split]
    tests = [name for name in roles[TEST] if name != layout.train_split]
    if not found and not layout.hold_out:
        found = [name for name in tests if visible_folders(root / name)]
    if len(found) > 1:
        raise ValueError(f"{root} has the folders {' and '.join(found)}; choose one with --val-split NAME, or none")
    return (found[0], (TEST_IS_VAL,) if found[0] in tests else ()) if found else (None, ())


def _named(root: Path, name: str, option: str, names: list[str]) -> str:
    if not os.path.isdir(root / name):
        raise ValueError(f"{option} is {name!r}, but {root} has no such folder, only {_few(names)}")
    return name


def _check_no_lookalikes(root: Path, names: list[str]) -> None:
    """Refuse folders such as train_images and val2017, which would become two classes."""
    words = {name: {ROLES[word] for word in re.findall("[a-z]+", name.lower()) if word in ROLES} for name in names}
    if len(names) > 1 and all(words.values()) and {TRAIN} in words.values() and {TRAIN} != set.union(*words.values()):
        raise ValueError(
            f"{root} has the folders {_few(names)}, which look like splits; name them with --train-split NAME and "
            f"--val-split NAME, or {_CLASSES}"
        )


def _few(names: list[str]) -> str:
    return (", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")) or "none"
