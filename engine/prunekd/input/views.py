"""Views: the crop box and flip of each sample, as pure functions of (settings, seed, view index, id, width, height).

No state, so a view can be had again at any time: in another reader, on another rank, after a resume, or when a soft
label was cached for it.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from prunekd.common.philox import CROP, FLIP, SHIFT, uniforms

KINDS = ("random_resized_crop", "pad_crop", "center", "full")
ATTEMPTS = 10

LARGEST = 65_535  # pixels, the largest side of a JPEG


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSettings:
    """How views are drawn; the output is `size` x `size` pixels.

    kind:
        random_resized_crop: area in `scale` x the image's, aspect ratio w / h in `ratio`, anywhere (torchvision's
            distribution), flipped with probability `flip`.
        pad_crop: the whole frame shifted by up to `padding` pixels each way over black, flipped (CIFAR's).
        center: the central square of `crop_ratio` x the shorter side: Resize(size / crop_ratio), CenterCrop(size).
        full: the whole image.
    """

    kind: str
    size: int
    scale: tuple[float, ...] = (0.08, 1.0)
    ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    padding: int = 4
    flip: float = 0.5
    crop_ratio: float = 0.875

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"view kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        if not 1 <= self.size <= LARGEST:
            raise ValueError(f"view size is {self.size}; it must be 1 to {LARGEST} pixels")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"view scale is {self.scale}; it must be two rising fractions of the area in (0, 1]")
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"view ratio is {self.ratio}; it must be two rising positive numbers")
        if self.padding < 0:
            raise ValueError(f"view padding is {self.padding}; it must be 0 or more")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"view flip is {self.flip}; it is a probability in [0, 1]")
        if not 0 < self.crop_ratio <= 1:
            raise ValueError(f"view crop_ratio is {self.crop_ratio}; it must be in (0, 1]")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


class Views(NamedTuple):
    """boxes int32 (n, 4): left, top, width, height in stored pixels; flips bool (n,): mirror left-right."""

    boxes: np.ndarray
    flips: np.ndarray


def views(
    settings: ViewSettings, seed: int, view_index: int, ids: np.ndarray, widths: np.ndarray, heights: np.ndarray
) -> Views:
    """Views number `view_index` of the samples `ids` (n,) with these stored widths and heights (n,) in pixels.

    A box may reach over the image's edges for pad_crop alone.
    """
    widths, heights = np.asarray(widths, dtype=np.int64), np.asarray(heights, dtype=np.int64)
    if settings.kind in ("center", "full"):
        boxes = _center(settings, widths, heights) if settings.kind == "center" else _whole(widths, heights)
        return Views(boxes.astype(np.int32), np.zeros(len(boxes), dtype=bool))
    flips = uniforms(seed, view_index, FLIP, ids)[0] < settings.flip
    if settings.kind == "pad_crop":
        boxes = _shifted(settings, seed, view_index, ids, widths, heights)
    else:
        boxes = _random_resized(settings, seed, view_index, ids, widths, heights)
    return Views(boxes.astype(np.int32), flips)


def _whole(widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    zeros = np.zeros_like(widths)
    return np.stack((zeros, zeros, widths, heights), axis=1)


def _center(settings: ViewSettings, widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    side = np.maximum(1, np.rint(np.minimum(widths, heights) * settings.crop_ratio)).astype(np.int64)
    return np.stack(((widths - side) // 2, (heights - side) // 2, side, side), axis=1)


def _shifted(
    settings: ViewSettings, seed: int, view_index: int, ids: np.ndarray, widths: np.ndarray, heights: np.ndarray
) -> np.ndarray:
    span = 2 * settings.padding + 1
    drawn = uniforms(seed, view_index, SHIFT, ids)[:2]
    left, top = (np.floor(drawn * span) - settings.padding).astype(np.int64)
    return np.stack((left, top, widths, heights), axis=1)


def _random_resized(
    settings: ViewSettings, seed: int, view_index: int, ids: np.ndarray, widths: np.ndarray, heights: np.ndarray
) -> np.ndarray:
    """Inception's crop as torchvision draws it: up to ten tries, then the largest central crop of allowed aspect."""
    boxes = _largest_allowed(settings, widths, heights)
    open_rows = np.arange(len(boxes))
    low, high = np.log(settings.ratio[0]), np.log(settings.ratio[1])
    for attempt in range(ATTEMPTS):
        u = uniforms(seed, view_index, CROP + attempt, np.asarray(ids)[open_rows])
        w, h = widths[open_rows], heights[open_rows]
        area = w * h * (settings.scale[0] + u[0] * (settings.scale[1] - settings.scale[0]))
        aspect = np.exp(low + u[1] * (high - low))
        crop_w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
        crop_h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
        fits = (crop_w > 0) & (crop_w <= w) & (crop_h > 0) & (crop_h <= h)
        left = np.floor(u[2] * (w - crop_w + 1)).astype(np.int64)
        top = np.floor(u[3] * (h - crop_h + 1)).astype(np.int64)
        boxes[open_rows[fits]] = np.stack((left, top, crop_w, crop_h), axis=1)[fits]
        open_rows = open_rows[~fits]
        if not len(open_rows):
            break
    return boxes


def _largest_allowed(settings: ViewSettings, widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    aspect = widths / heights
    crop_w = np.where(aspect > settings.ratio[1], np.rint(heights * settings.ratio[1]), widths).astype(np.int64)
    crop_h = np.where(aspect < settings.ratio[0], np.rint(widths / settings.ratio[0]), heights).astype(np.int64)
    return np.stack(((widths - crop_w) // 2, (heights - crop_h) // 2, crop_w, crop_h), axis=1)
