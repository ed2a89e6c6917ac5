"""Labels as sources state them, numbers or names, made into numbers with class names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

MAX_CLASSES = 1 << 20


def number_labels(
    path: Path,
    stated: Mapping[str, Sequence[int | str]],
    names: Sequence[str] | None = None,
    as_names: bool = False,
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Class names by label, and the labels of each split, int64 (n,).

    If every label is a number, that number is the label, and `names` or else the numbers themselves are the names of
    the classes. If none is, or with `as_names`, all are names, numbered in sorted order.

    Args:
        path: of the source, for messages.
        stated: the labels as they are stated, by split; `train` among them.
        names: of the classes, where labels are numbers and the source says it.

    Raises:
        ValueError: numbers and names are mixed, a number is negative, too large or without a name, or `val` has a class
            that `train` lacks.
    """
    if as_names or not _are_numbers(path, stated):
        classes = sorted({str(label) for label in stated["train"]})
        number_of = {name: number for number, name in enumerate(classes)}
        stranger = next((str(v) for values in stated.values() for v in values if str(v) not in number_of), None)
        if stranger is not None:
            raise ValueError(f"{path}: the validation images have the class {stranger!r}, which train lacks")
        return tuple(classes), {split: _int64([number_of[str(v)] for v in stated[split]]) for split in stated}
    numbers = {split: _int64(labels) for split, labels in stated.items()}
    for split, values in numbers.items():
        if (values < 0).any():
            raise ValueError(
                f"{path}: labels reach from {values.min()}: {int((values < 0).sum())} of the {len(values)} labels of "
                f"{split} are below 0 (-1 often marks samples without a label); remove these samples"
                + ("" if split == "train" else ", or leave the split out with --val-split none")
            )
    low, high = min(int(v.min()) for v in numbers.values()), max(int(v.max()) for v in numbers.values())
    limit = MAX_CLASSES if names is None else len(names)
    if high >= limit:
        raise ValueError(f"{path}: labels reach from {low} to {high}; they must be from 0 to {limit - 1}")
    strangers = np.setdiff1d(numbers.get("val", numbers["train"]), numbers["train"])
    if len(strangers):
        raise ValueError(f"{path}: the validation images have the class {strangers[0]}, which train lacks")
    return tuple(names or (str(label) for label in range(high + 1))), numbers


def _are_numbers(path: Path, stated: Mapping[str, Sequence[int | str]]) -> bool:
    """Whether the labels are numbers; ValueError if only some are: one damaged label must not renumber all classes."""
    labels = [label for values in stated.values() for label in values]
    texts = [label for label in labels if not isinstance(label, int)]
    if texts and len(texts) < len(labels):
        number = next(label for label in labels if isinstance(label, int))
        raise ValueError(
            f"{path}: {len(labels) - len(texts)} labels are numbers (the first {number}), {len(texts)} are not (the "
            f"first {texts[0]!r}); correct them, or give --label-names if all are names of classes"
        )
    return not texts


def _int64(values: Sequence[int | str]) -> np.ndarray:
    return np.array([min(max(int(v), -1), MAX_CLASSES) for v in values], dtype=np.int64)
