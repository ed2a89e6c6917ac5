"""Settings of a conversion."""

import math
from dataclasses import asdict, dataclass
from numbers import Real

from prunekd.common.registry import unknown
from prunekd.store.format.beton_writer import DEFAULT_PAGE_SIZE, check_page_size
from prunekd.store.format.jpeg import JPEG_MAX_SIDE, PILLOW_MAX_PIXELS

MODES = ("auto", "jpeg", "raw")
_SHAPING = ("max_side", "mode", "quality", "max_pixels", "page_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """How inputs become samples.

    Attributes:
        max_side: longest side in pixels, larger images are shrunk; 0 for no limit (but that of JPEG, 65500).
        mode: `auto` keeps JPEG as JPEG, stores other images raw up to 64 pixels and as JPEG above; `jpeg` or `raw`
            for all.
        quality: JPEG quality of what must be encoded, 1 to 100.
        max_pixels: larger inputs are quarantined by their header, before they are decoded.
        page_size: bytes of a page of the `.beton` file; no sample may be larger.
        workers: threads that read, check and encode; 0 for one per core. Does not change the result.
        chunk_size: samples between two points from which an interrupted conversion resumes. Does not change the result.
        overwrite: replace the store that is there.
        max_quarantined: unreadable inputs allowed in each split: a float is a share (rounded up), an int a count. More
            end the conversion. Does not change the result.
    """

    max_side: int = 1024
    mode: str = "auto"
    quality: int = 95
    max_pixels: int = 100_000_000
    page_size: int = DEFAULT_PAGE_SIZE
    workers: int = 0
    chunk_size: int = 512
    overwrite: bool = False
    max_quarantined: float = 0.01

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)
        _within("max_side", self.max_side, 0, JPEG_MAX_SIDE, "0 means no limit")
        _within("quality", self.quality, 1, 100, "95 is a good choice")
        _within("max_pixels", self.max_pixels, 1, PILLOW_MAX_PIXELS, "shrink larger images first")
        _within("workers", self.workers, 0, 1024, "0 means one per core")
        _within("chunk_size", self.chunk_size, 1, 1 << 20, "512 is a good choice")
        check_page_size(self.page_size)
        most = 1 if isinstance(self.max_quarantined, float) else math.inf
        if not isinstance(self.max_quarantined, Real) or not 0 <= self.max_quarantined <= most:
            raise ValueError(
                f"max_quarantined is {self.max_quarantined!r}; it must be a share, a float from 0.0 to 1.0, or a "
                "count, an int from 0 on"
            )

    def allowed(self, inputs: int) -> int:
        """How many inputs of a split of so many may be unreadable."""
        if isinstance(self.max_quarantined, float):
            return math.ceil(self.max_quarantined * inputs)
        return self.max_quarantined

    def shaping(self) -> dict[str, int | str]:
        """The settings on which the stored samples depend, for `store.json` and for the decision to resume."""
        values = asdict(self)
        return {name: values[name] for name in _SHAPING}


def _within(name: str, value: int, low: int, high: int, remedy: str) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must be from {low} to {high} ({remedy})")
