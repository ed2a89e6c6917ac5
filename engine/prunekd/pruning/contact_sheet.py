"""A contact sheet: what a subset keeps beside what it drops, as one picture."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prunekd.common.files import replacing
from prunekd.pruning.policies.ordering import by_chance
from prunekd.pruning.scores.table import Scores
from prunekd.pruning.subset import Subset
from prunekd.store import Split, Store
from prunekd.store.jobs.images import to_rgb

COLUMNS, ROWS = 6, 8
THUMBNAIL, CAPTION, GAP, TITLE = 96, 34, 8, 40  # pixels
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
KEPT, DROPPED = (0, 114, 178), (213, 94, 0)  # tell apart without red-green sight
MODE_RAW = 1


def draw_contact_sheet(
    store: Store, subset: Subset, target: Path, scores: Scores | None = None, score: str | None = None, seed: int = 0
) -> None:
    """Draw up to 48 kept and 48 dropped samples, drawn by `seed`, into the PNG `target`.

    Captions give the class and, with `scores`, the value of `score` (None: the subset's own, else the first of the
    file); the samples then stand in ascending order of difficulty.

    Raises:
        ValueError: the subset or the scores were made for another store, or the score is unknown.
    """
    subset.check(store)
    split = store.split(subset.info["split"])
    values: dict[int, float] = {}
    name = ""
    dropped = np.setdiff1d(split.ids, subset.ids)
    blocks = [_sample(ids, seed) for ids in (subset.ids, dropped)]
    if scores is not None:
        scores.check(store, subset.info["split"])
        name = score or _shown_score(subset, scores)
        for k, ids in enumerate(blocks):
            difficulty = scores.difficulty(name, ids)
            values |= dict(zip(ids.tolist(), scores.values(name, ids).tolist(), strict=True))
            blocks[k] = ids[np.lexsort((ids, difficulty))]
    order = f", easy to hard by {name}" if name else ""
    titles = [
        (f"kept: {len(subset.ids):,} of {len(split.ids):,}{order}", KEPT),
        (f"dropped: {len(dropped):,}{order if len(dropped) else ''}", DROPPED),
    ]
    width = COLUMNS * (THUMBNAIL + GAP) + GAP
    height = TITLE + ROWS * (THUMBNAIL + CAPTION) + GAP
    sheet = Image.new("RGB", (2 * width + 2 * GAP, height), PAPER)
    for k, (ids, (title, colour)) in enumerate(zip(blocks, titles, strict=True)):
        _draw_block(sheet, k * (width + 2 * GAP), title, colour, _thumbnails(store, split, ids, values))
    with replacing(target) as temporary:
        sheet.save(temporary, format="PNG")


def draw_contact_sheets(
    store: Store, subsets: Mapping[str, Subset], folder: Path, scores: Scores | None = None, score: str | None = None
) -> list[Path]:
    """Draw a contact sheet of each subset into `folder`, as NAME.png; returns the files. Errors as of one sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, subset in subsets.items():
        drawn.append(folder / f"{Path(name).name}.png")
        draw_contact_sheet(store, subset, drawn[-1], scores, score)
    return drawn


def _sample(ids: np.ndarray, seed: int) -> np.ndarray:
    return ids[by_chance(seed, ids)[: COLUMNS * ROWS]]


def _shown_score(subset: Subset, scores: Scores) -> str:
    own = subset.info["score"]
    return own if own in scores.hard_ends else next(iter(scores.hard_ends))


def _thumbnails(
    store: Store, split: Split, ids: np.ndarray, values: dict[int, float]
) -> Iterator[tuple[Image.Image, str, str]]:
    """The picture, the class and the score of each sample."""
    with split.payloads() as payloads:
        for i, row in zip(ids.tolist(), split.rows(ids).tolist(), strict=True):
            data = payloads.read(row)
            if split.modes[row] == MODE_RAW:
                pixels = np.frombuffer(data, np.uint8).reshape(split.heights[row], split.widths[row], 3)
            else:
                pixels = to_rgb(data)
            value = f"{values[i]:.3g}" if i in values else ""
            yield _fit(Image.fromarray(pixels)), store.classes[split.labels[row]], value


def _fit(image: Image.Image) -> Image.Image:
    """Scale to the thumbnail's size, whole; small images keep their pixels visible."""
    scale = THUMBNAIL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _draw_block(
    sheet: Image.Image,
    left: int,
    title: str,
    colour: tuple[int, int, int],
    thumbnails: Iterator[tuple[Image.Image, str, str]],
) -> None:
    draw = ImageDraw.Draw(sheet)
    heading, text = ImageFont.load_default(17), ImageFont.load_default(12)
    width = COLUMNS * (THUMBNAIL + GAP) - GAP
    draw.text((left + GAP, 6), title, fill=colour, font=heading)
    draw.rectangle((left + GAP, TITLE - 10, left + GAP + width, TITLE - 8), fill=colour)
    for k, (image, name, value) in enumerate(thumbnails):
        x = left + GAP + (k % COLUMNS) * (THUMBNAIL + GAP)
        y = TITLE + (k // COLUMNS) * (THUMBNAIL + CAPTION)
        sheet.paste(image, (x + (THUMBNAIL - image.width) // 2, y + (THUMBNAIL - image.height) // 2))
        draw.text((x, y + THUMBNAIL + 1), _shorten(draw, name, text), fill=INK, font=text)
        draw.text((x, y + THUMBNAIL + 15), value, fill=FAINT, font=text)


def _shorten(draw: ImageDraw.ImageDraw, name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The name cut to the thumbnail's width; characters the font lacks are drawn as boxes."""
    name = name.replace("\n", " ")
    if draw.textlength(name, font=font) <= THUMBNAIL:
        return name
    while name and draw.textlength(name + "...", font=font) > THUMBNAIL:
        name = name[:-1]
    return name + "..."
