"""The report of sweeps as files: a page, a picture, Markdown, CSV and JSON."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prunekd.common.files import replacing
from prunekd.reporting.aggregate import Summary
from prunekd.reporting.headline import headline
from prunekd.reporting.markdown import render_markdown
from prunekd.reporting.tables import render_csv, render_json

logger = logging.getLogger(__name__)

RENDERERS = {"md": render_markdown, "csv": render_csv, "json": render_json}
FORMATS = ("html", *RENDERERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What sweeps found, as text, and the files it was written to.

    Attributes:
        summaries: figures of each sweep.
        files: what was written, in order; empty without an output file.
    """

    summaries: tuple[Summary, ...]
    files: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        return "\n".join([*self.headlines, *map(str, self.files)])

    def _repr_markdown_(self) -> str:
        return self.text("md")

    @property
    def headlines(self) -> list[str]:
        """What each sweep found, in sentences."""
        return [line for summary in self.summaries for line in headline(summary)]

    def text(self, kind: str) -> str:
        """The report as `md`, `csv` (a row per run) or `json`."""
        if kind not in RENDERERS:
            raise ValueError(f"the report as {kind!r} is no text; it must be {', '.join(RENDERERS)}")
        return RENDERERS[kind](self.summaries)


def write_report(summaries: Sequence[Summary], out: Path) -> list[Path]:
    """Write the report to `out` in the format that its suffix names, and return the files.

    A page (.html) comes with .png, .md, .csv and .json of the same name beside it.

    Raises:
        ValueError: another suffix.
    """
    kind = out.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"{out} names no format of a report; its suffix must be {', '.join(f'.{k}' for k in FORMATS)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "html":
        return _write_all(summaries, out)
    return [_write(out, RENDERERS[kind](summaries))]


def _write_all(summaries: Sequence[Summary], out: Path) -> list[Path]:
    """The page last, so that it is there only when all is."""
    from prunekd.reporting.figures import write_overview  # Matplotlib: a second to import, for pictures alone
    from prunekd.reporting.page import write_page

    runs = sum(len(summary.sweep.runs) for summary in summaries)
    logger.info(f"{len(summaries)} sweep{'s' * (len(summaries) > 1)}, {runs} runs")
    pictures = [out.with_suffix(".png")]
    if len(summaries) > 1:
        pictures = [out.with_name(f"{out.stem}-{at + 1}.png") for at in range(len(summaries))]
    for summary, path in zip(summaries, pictures, strict=True):
        write_overview(summary, path, headline(summary)[0])
    texts = [_write(out.with_suffix(f".{kind}"), render(summaries)) for kind, render in RENDERERS.items()]
    write_page(summaries, out)
    return [*pictures, *texts, out]


def _write(path: Path, text: str) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
