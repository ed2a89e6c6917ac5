"""Datasets in many files: finding the files, by folder or pattern, and telling the split of each from its name."""

import glob
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from prunekd.store.sources.imagefolder import has_class_folders
from prunekd.store.sources.layout import HERE, NONE, ROLES, TEST_IS_VAL, Layout

_PATTERN = re.compile(r"[*?\[{]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_SHARDS = 1 << 20


def is_pattern(path: Path) -> bool:
    """Whether a path that is not there stands for several files."""
    return not path.exists() and bool(_PATTERN.search(str(path)))


def find_shards(path: Path, suffix: str) -> tuple[Path, list[Path]]:
    """The folder below which the files of a dataset lie, and the files, sorted.

    A file is itself; a folder is all files below it that end in `suffix`, hidden ones left out; in a pattern `{a,b}`
    and `{000..127}` stand for alternatives, each of which must be there, and `*`, `?`, `[...]` for whatever is there.

    Raises:
        ValueError: nothing matches, or an alternative is missing.
    """
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        below = (file for file in path.rglob(f"*{suffix}") if file.is_file())
        shards = [file for file in below if not _hidden(file.relative_to(path))]
        root = path
    else:
        root = Path(_PATTERN.split(str(path))[0] + "x").parent  # what stands before the first sign of a pattern
        shards = sorted({Path(match) for name in _alternatives(str(path)) for match in _matches(name)})
    if not shards:
        raise ValueError(f"{path} holds no files *{suffix}")
    return root, sorted(shards)


def recognise_shards(path: Path, suffix: str) -> str:
    """Why a path is taken for files that end in `suffix`; empty if it is not.

    In a folder they may lie two folders down; beside an image folder's `train/CLASS` they are not what is meant.
    """
    if not path.is_dir():
        return f"*{suffix}" if path.suffix == suffix else ""
    for depth in ("", "*/", "*/*/") if not has_class_folders(path) else ():
        below = sorted(file.relative_to(path) for file in path.glob(f"{depth}*{suffix}") if file.is_file())
        visible = [file for file in below if not _hidden(file)]
        if visible:
            return f"there is {visible[0]}"
    return ""


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def by_split(
    root: Path, shards: Sequence[Path], ignored: Counter[str], layout: Layout
) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Files by split, `train` first, and what a user should be told about the choice.

    The split is told from the words in the names of the files, or else of the folders above, up to `root`: those that
    `layout` says, or the usual ones. `test` is the validation split where no file is named `val`; else, like files of
    no split beside others of `train`, it is counted in `ignored`. If no file says `train`, those that say nothing are
    it.

    Raises:
        ValueError: no file is of `train`, or of a split that `layout` names.
    """
    found: dict[str, list[Path]] = {"train": [], "val": [], "test": [], "": []}
    notes: tuple[str, ...] = ()
    for shard in shards:
        found[_split_of(shard.relative_to(root), layout)].append(shard)
    if layout.train_split is None and not found["train"]:
        found["train"], found[""] = found[""], []
    if layout.val_split is None and not found["val"] and found["test"] and not layout.hold_out:
        found["val"], found["test"], notes = found["test"], [], (TEST_IS_VAL,)
    for split, name in (("train", layout.train_split), ("val", layout.val_split)):
        if name not in (None, NONE) and not found[split]:
            raise ValueError(f"--{split}-split is {name!r}, but no file in {root} has this word in its name")
    if not found["train"]:
        raise ValueError(
            f"{root} holds no files of train among {len(shards)}; name them train-*, or say with --train-split what is "
            "in their names (. for all files)"
        )
    for reason, left in (
        ("file of test beside val", found["test"]),
        ("file of no split", found[""]),
        ("file of val left out", found.pop("val") if layout.val_split == NONE else []),
    ):
        if left:
            ignored[reason] += len(left)
    return {split: found[split] for split in ("train", "val") if found.get(split)}, notes


def _split_of(relative: Path, layout: Layout) -> str:
    if layout.train_split == HERE:
        return "train"
    said = {"train": layout.train_split, "val": layout.val_split}
    for part in reversed(relative.parts):
        words = re.findall("[a-z0-9]+", part.lower())
        for split, name in said.items():
            if name is not None and (name.lower() in words or name == part):
                return split
        for word in re.findall("[a-z]+", part.lower()):
            if word in ROLES:
                role = ROLES[word]
                return "" if said.get(role) not in (None, NONE) else role  # another name was said for this split
    return ""


def _alternatives(pattern: str) -> list[str]:
    """The names that the braces of a pattern stand for."""
    names = [""]
    position = 0
    for braces in _BRACES.finditer(pattern):
        numbers = _RANGE.fullmatch(braces[1])
        words = _numbers(*numbers.groups()) if numbers else braces[1].split(",")
        names = [name + pattern[position : braces.start()] + word for name in names for word in words]
        if len(names) > _MAX_SHARDS:
            raise ValueError(f"{pattern} stands for more than {_MAX_SHARDS} files")
        position = braces.end()
    return [name + pattern[position:] for name in names]


def _numbers(first: str, last: str) -> list[str]:
    count = int(last) - int(first) + 1
    if not 0 < count <= _MAX_SHARDS:
        raise ValueError(f"{{{first}..{last}}} stands for no numbers, or for too many; the lower one comes first")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _matches(name: str) -> list[str]:
    if Path(name).is_file():
        return [name]
    matches = [match for match in glob.glob(name) if Path(match).is_file()]
    if not matches:
        raise ValueError(f"{name} does not exist; all shards of a pattern must be there")
    return matches
