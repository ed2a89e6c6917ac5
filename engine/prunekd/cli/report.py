"""`prunekd report`."""

from pathlib import Path
from typing import Any

import click

from prunekd.cli._shared import JSON, emit, say

FORMATS = ("html", "md", "csv", "json")


@click.command("report")
@click.argument("sweeps", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to [default: report.html; the other formats go to the terminal].",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="html",
    show_default=True,
    help="html writes the page, with .png, .md, .csv and .json of the same name beside it.",
)
@JSON
def command(sweeps: tuple[Path, ...], out: Path | None, kind: str, as_json: bool) -> None:
    """Make the report of one or several SWEEPS that `prunekd bench` trained, finished or not.

    Several sweeps stand side by side on one page.

    \b
    Example:
      prunekd report sweep --out report.html
      prunekd report sweep --format md
      prunekd report resnet18 resnet50 --out both.html
    """
    from prunekd.report.aggregate import summarize_sweep
    from prunekd.report.headline import headline
    from prunekd.report.results import read_sweep
    from prunekd.report.tables import render_json

    if kind == "html" and out is None:
        out = Path("report.html")
    if out is not None and out.suffix != f".{kind}":
        raise ValueError(f"--out is {out}; in the format {kind} it must end in .{kind}")
    summaries = [summarize_sweep(read_sweep(sweep)) for sweep in sweeps]
    if out is None:
        click.echo(_render(kind, summaries), nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    written = _write_all(summaries, out) if kind == "html" else [_write(out, _render(kind, summaries))]
    sentences = [line for summary in summaries for line in headline(summary)]
    if as_json:
        click.echo(render_json(summaries), nl=False)
        return
    emit(None, False, "\n".join([*sentences, *map(str, written)]))


def _render(kind: str, summaries: list[Any]) -> str:
    from prunekd.report.markdown import render_markdown
    from prunekd.report.tables import render_csv, render_json

    return {"md": render_markdown, "csv": render_csv, "json": render_json}[kind](summaries)


def _write_all(summaries: list[Any], out: Path) -> list[Path]:
    """The page last, so that it is there only when all is."""
    from prunekd.report.figures import write_overview
    from prunekd.report.headline import headline
    from prunekd.report.page import write_page

    say(f"{len(summaries)} sweep{'s' * (len(summaries) > 1)}, {sum(len(s.sweep.runs) for s in summaries)} runs")
    pictures = [out.with_suffix(".png")]
    if len(summaries) > 1:
        pictures = [out.with_name(f"{out.stem}-{at + 1}.png") for at in range(len(summaries))]
    for summary, path in zip(summaries, pictures, strict=True):
        write_overview(summary, path, headline(summary)[0])
    texts = [_write(out.with_suffix(f".{kind}"), _render(kind, summaries)) for kind in FORMATS if kind != "html"]
    write_page(summaries, out)
    return [*pictures, *texts, out]


def _write(path: Path, text: str) -> Path:
    from prunekd.common.files import replacing

    with replacing(path) as temporary:
        temporary.write_text(text)
    return path
