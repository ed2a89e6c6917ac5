"""`prunekd report`."""

from pathlib import Path

import click

from prunekd.cli._shared import JSON, emit


@click.command("report")
@click.argument("sweep", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="report.html",
    show_default=True,
    help="The page; .png, .csv and .json of the same name are written beside it.",
)
@JSON
def command(sweep: Path, out: Path, as_json: bool) -> None:
    """Make the report of a SWEEP that `prunekd bench` trained, finished or not.

    \b
    Example:
      prunekd report sweep --out report.html
    """
    from prunekd.report.aggregate import summarize_sweep
    from prunekd.report.figures import write_overview
    from prunekd.report.headline import headline
    from prunekd.report.page import write_page
    from prunekd.report.results import read_sweep
    from prunekd.report.tables import summary_dict, write_csv, write_summary

    if out.suffix != ".html":
        raise ValueError(f"--out is {out}; it names the page and must end in .html")
    summary = summarize_sweep(read_sweep(sweep))
    sentences = headline(summary)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_overview(summary, out.with_suffix(".png"), sentences[0])
    write_csv(summary, out.with_suffix(".csv"))
    write_summary(summary, out.with_suffix(".json"))
    write_page(summary, out)
    paths = [str(out.with_suffix(suffix)) for suffix in (".png", ".csv", ".json", ".html")]
    emit(summary_dict(summary), as_json, "\n".join([*sentences, *paths]))
