"""`prunekd report`."""

from pathlib import Path

import click

from prunekd.cli._shared import JSON, emit

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
    from prunekd.api.sweeps import report

    if kind == "html" and out is None:
        out = Path("report.html")
    if out is not None and out.suffix != f".{kind}":
        raise ValueError(f"--out is {out}; in the format {kind} it must end in .{kind}")
    found = report(sweeps, out)
    if out is None:
        click.echo(found.text(kind), nl=False)
    elif as_json:
        click.echo(found.text("json"), nl=False)
    else:
        emit(None, False, "\n".join([*found.headlines, *map(str, found.files)]))
