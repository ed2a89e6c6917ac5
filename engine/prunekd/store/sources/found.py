"""What was found in a source, told before hours are spent on it."""

import numpy as np

from prunekd.store.sources.source import TRAIN, Source

LISTED = 5  # kinds of ignored things that are named


def found_lines(source: Source) -> list[str]:
    """One line per split, with the number of images and classes, and what was guessed or ignored."""
    folders = source.describe().get("folders", {})
    lines = []
    for split in source.splits:
        sizes = np.bincount(source.labels(split), minlength=len(source.classes))
        low, high = int(sizes.min()), int(sizes.max())
        spread = f"{low}" if low == high else f"{low} to {high}"
        where = f" ({folders[split]})" if split in folders else ""
        empty = f", {int((sizes == 0).sum())} of them empty" if low == 0 else ""
        classes = f"{len(source.classes)} classes{empty}"
        lines.append(f"{split}: {int(sizes.sum())} images, {classes}, {spread} per class{where}")
    lines += getattr(source, "notes", ())  # sources of one's own need not have any
    ignored = [f"{count} x {what}" for what, count in source.ignored.items()]
    if ignored:
        more = f" and {len(ignored) - LISTED} other kinds" if len(ignored) > LISTED else ""
        lines.append(f"ignored: {', '.join(ignored[:LISTED])}{more}")
    return lines


def check_classes(source: Source) -> None:
    """Raise ValueError unless at least two classes have images to train on."""
    sizes = np.bincount(source.labels(TRAIN), minlength=len(source.classes))
    with_images = np.flatnonzero(sizes)
    if len(with_images) < 2:
        name = source.classes[int(with_images[0])] if len(with_images) else "none"
        path = source.describe()["path"]
        raise ValueError(
            f"{path} has images of one class alone, {name!r} ({int(sizes.sum())} in train); training needs two or "
            f"more. Give the folder that holds the class folders, one per class (perhaps {path}/{name}), or --source"
        )
