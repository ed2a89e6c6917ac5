"""The report page: one HTML file that asks nothing of the network.

Every figure is there twice: drawn, as SVG, which is what shows without JavaScript, and as data for plotly.js, whose
partial bundle `basic` (scatter and bar alone: 1.2 MB where the whole library has 4.8) comes with prunekd and is written
into the page, so that it opens from a mail or a file system for as long as browsers read HTML. uPlot is smaller, but
has neither error bars nor hover texts of one's own.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from prunekd.common.files import replacing
from prunekd.reporting import sections
from prunekd.reporting.aggregate import Summary
from prunekd.reporting.figures import Picture, page_figures
from prunekd.reporting.headline import headline
from prunekd.reporting.plots import legend_entries, plot
from prunekd.reporting.results import timing_note
from prunekd.reporting.style import DARK, LIGHT, css_variables
from prunekd.reporting.views import OTHER_FIGURES, VIEWS

CAPTIONS = {name: (view.title, view.caption) for name, view in VIEWS.items()} | OTHER_FIGURES
Pictures = Mapping[str, Sequence[Picture | None]]


def write_page(summaries: Sequence[Summary], path: Path) -> None:
    """Write the page of one or several sweeps to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(render_page(summaries), encoding="utf-8")


def render_page(summaries: Sequence[Summary]) -> str:
    """The page as HTML text; several sweeps stand side by side, with the same axes."""
    pictures = page_figures(summaries)
    if len(summaries) == 1:
        title, *others = _sentences(summaries[0])
        parts = _one(summaries[0], others, pictures)
    else:
        title = f"{len(summaries)} sweeps side by side"
        parts = _several(summaries, pictures)
    colours = f":root{{color-scheme:light dark;{css_variables(LIGHT)}}}"
    colours += f"@media (prefers-color-scheme:dark){{:root{{{css_variables(DARK)}}}}}"
    brand = " &middot; ".join(["prunekd report", *(escape(name) for name in _names(summaries))])
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{colours}{_asset('page.css')}</style>"
    )
    body = [f'<p class="brand">{brand}</p>', f"<h1>{escape(title)}</h1>", *parts]
    kind = ' class="several"' if len(summaries) > 1 else ""
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main{kind}>\n'
        + "\n".join(part for part in body if part)
        + f"\n</main>\n{_scripts(summaries, pictures)}</body></html>\n"
    )


def _one(summary: Summary, sentences: Sequence[str], pictures: Pictures) -> list[str]:
    figures = "".join(_figure(name, drawn[0], f"{name}0") for name, drawn in pictures.items())
    return [
        *(f"<p>{escape(sentence)}</p>" for sentence in sentences),
        sections.warnings(summary),
        "<h2>What the papers claim</h2>",
        sections.claims(summary),
        '<div id="series" hidden></div>' if figures else "",
        f'<div class="figures">{figures}</div>' if figures else "",
        "<h2>Every point</h2>",
        sections.table(sections.POINT_COLUMNS, map(sections.point_row, summary.groups)),
        sections.definitions(summary),
        sections.every_run(summary),
        "<h2>Is an epoch proportional to what is kept?</h2>",
        sections.fits(summary.fits),
        "<h2>Pruning against the same time without pruning</h2>",
        sections.equal_time(summary),
        "<h2>Ledger, seconds of a run</h2>",
        sections.ledger(summary),
        "<h2>Where this comes from</h2>",
        sections.provenance(summary.sweep.facts),
    ]


def _sentences(summary: Summary) -> list[str]:
    """The headline without what the warnings say."""
    return [line for line in headline(summary) if line != timing_note(summary.sweep)]


def _several(summaries: Sequence[Summary], pictures: Pictures) -> list[str]:
    names = _names(summaries)
    first = "".join(
        f"<div><h3>{escape(name)}</h3>{''.join(f'<p>{escape(line)}</p>' for line in _sentences(summary))}"
        f"{sections.warnings(summary)}</div>"
        for name, summary in zip(names, summaries, strict=True)
    )
    parts = [f'<div class="beside">{first}</div>', '<div id="series" hidden></div>']
    for name, drawn in pictures.items():
        title, caption = CAPTIONS[name]
        figures = "".join(
            f"<div><h3>{escape(names[at])}</h3>{_bare_figure(picture, f'{name}{at}')}</div>"
            for at, picture in enumerate(drawn)
        )
        parts.append(f'<h2>{escape(title)}</h2>{sections.note(caption)}<div class="beside">{figures}</div>')
    rows = [
        [sweep, *sections.point_row(group)]
        for sweep, summary in zip(names, summaries, strict=True)
        for group in summary.groups
    ]
    parts += ["<h2>Every point</h2>", sections.table(("sweep", *sections.POINT_COLUMNS), rows)]
    for name, summary in zip(names, summaries, strict=True):
        parts += [
            f"<h2>{escape(name)}</h2>",
            sections.claims(summary),
            sections.definitions(summary),
            sections.every_run(summary),
            sections.equal_time(summary),
            sections.provenance(summary.sweep.facts),
        ]
    return parts


def _figure(name: str, picture: Picture | None, key: str) -> str:
    if picture is None:
        return ""
    title, text = CAPTIONS[name]
    wide = ' class="wide"' if name == "ledger" else ""
    caption = f"<figcaption><b>{escape(title)}</b>{escape(text)}</figcaption>"
    return f'<figure id="{key}"{wide}>{caption}{picture.svg}<div class="chart" hidden></div></figure>'


def _bare_figure(picture: Picture | None, key: str) -> str:
    if picture is None:
        return sections.note("nothing was measured")
    return f'<figure id="{key}">{picture.svg}<div class="chart" hidden></div></figure>'


def _scripts(summaries: Sequence[Summary], pictures: Pictures) -> str:
    plots = [
        {"id": f"{name}{at}", **plot(name, summaries[at], picture)}
        for name, drawn in pictures.items()
        for at, picture in enumerate(drawn)
        if picture is not None
    ]
    if not plots:
        return ""
    series: dict[str, dict[str, str]] = {}
    for summary in summaries:
        for entry in legend_entries(summary):
            series.setdefault(entry["series"], entry)
    data = _for_script({"plots": plots, "series": list(series.values())})
    return (
        f'<script type="application/json" id="plots">{data}</script>\n'
        f"<script>{_asset('plotly-basic.min.js')}</script>\n<script>{_asset('page.js')}</script>\n"
    )


def _for_script(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("</", "<\\/").replace("<!--", "<\\!--")


def _asset(name: str) -> str:
    text = (resources.files("prunekd.reporting") / "assets" / name).read_text(encoding="utf-8")
    assert "</script" not in text, name
    return text


def _names(summaries: Sequence[Summary]) -> list[str]:
    """The sweeps' folder names, with as many parents as it takes to tell them apart."""
    paths = [summary.sweep.path.absolute() for summary in summaries]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"the same sweep was given twice: {', '.join(map(str, paths))}")
