"""The report page: one HTML file without scripts and without a single request."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from prunekd.common.files import replacing
from prunekd.report.aggregate import Fit, Group, Summary
from prunekd.report.figures import page_figures
from prunekd.report.headline import headline
from prunekd.report.style import DARK, LIGHT, css_variables, sorted_phases
from prunekd.report.wording import (
    DASH,
    arm_title,
    factor,
    number,
    percent,
    plural,
    runs_until,
    series_title,
)

CAPTIONS = {
    "accuracy": (
        "Accuracy against keep ratio",
        "Final top-1 in validation; bars are one standard deviation.",
    ),
    "speedup": (
        "Speed-up against keep ratio",
        "Training seconds of the same arm on all data, over those at keep r, seed by seed. Hollow: with the one-off "
        "costs (teacher, scoring, selection) counted in full. The thin line is the ideal 1/r.",
    ),
    "plain": (
        "Against plain training on all data",
        "The honest baseline: total seconds of plain training on all samples over total seconds of the run, one-off "
        "costs included. Below 1 the run cost more than not distilling and not pruning at all.",
    ),
    "time": ("Accuracy against time", "Training seconds plus one-off costs. Up and to the left is better."),
    "epochs": (
        "Seconds of an epoch",
        "Median epoch against the share of samples really kept, with the fit a r + c of each arm; c is what an epoch "
        "costs without any sample.",
    ),
    "ledger": ("Where the seconds went", "Mean of a run by phase, with its one-off costs."),
}

STYLE = """
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:clamp(1.3rem,2.6vw,1.9rem);line-height:1.25;margin:.2em 0 .5em;text-wrap:balance}
h2{font-size:1.15rem;margin:2.2em 0 .4em}p{margin:.4em 0;max-width:75ch}
.brand{color:var(--muted);font-size:.9rem;letter-spacing:.02em}.note{color:var(--muted);font-size:.9rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:28px 32px;margin-top:24px}
figure{margin:0;min-width:0}figure.wide{grid-column:1/-1}figcaption b{display:block;font-size:1.02rem}
figcaption{font-size:.86rem;color:var(--muted)}figcaption b{color:var(--ink)}svg{width:100%;height:auto;display:block}
figure.wide svg{max-width:720px}
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.scroll{overflow-x:auto;margin:.6em 0}table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--grid)}
th{color:var(--muted);font-weight:600;vertical-align:bottom}th:first-child,td:first-child{text-align:left}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;font-size:.9rem}dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}pre{overflow-x:auto;font-size:.8rem;background:var(--grid);padding:12px;border-radius:6px}
.warn{border-left:3px solid var(--s0);padding-left:12px}
"""


def write_page(summary: Summary, path: Path) -> None:
    """Write the page of a sweep to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(render_page(summary))


def render_page(summary: Summary) -> str:
    """The page as HTML text."""
    title, *others = headline(summary)
    parts = [
        f'<p class="brand">prunekd report &middot; {escape(summary.sweep.path.name)}</p>',
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in others),
        _missing(summary),
        _figures(summary),
        "<h2>Every point</h2>",
        _points(summary.groups),
        _definitions(summary),
        "<h2>Is an epoch proportional to what is kept?</h2>",
        _fits(summary.fits),
        "<h2>Pruning against the same time without pruning</h2>",
        _equal_time(summary),
        "<h2>Ledger, seconds of a run</h2>",
        _ledger(summary),
        "<h2>Where this comes from</h2>",
        _provenance(summary.sweep.facts),
    ]
    colours = f":root{{color-scheme:light dark;{css_variables(LIGHT)}}}"
    colours += f"@media (prefers-color-scheme:dark){{:root{{{css_variables(DARK)}}}}}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{colours}{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def _missing(summary: Summary) -> str:
    sweep = summary.sweep
    lines = []
    if sweep.missing:
        lines.append(f"Missing, not in any figure: {', '.join(sweep.missing)}.")
    if sweep.unlisted:
        lines.append(f"On disk, but not part of the sweep: {', '.join(sweep.unlisted)}.")
    return "".join(f'<p class="warn">{escape(line)}</p>' for line in lines)


def _figures(summary: Summary) -> str:
    found = []
    for name, svg in page_figures(summary).items():
        title, text = CAPTIONS[name]
        wide = ' class="wide"' if name == "ledger" else ""
        caption = f"<figcaption><b>{escape(title)}</b>{escape(text)}</figcaption>"
        found.append(f"<figure{wide}>{caption}{svg}</figure>")
    return f'<div class="figures">{"".join(found)}</div>' if found else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table that scrolls sideways where it is too wide; cells are escaped."""
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>'


def _points(groups: Sequence[Group]) -> str:
    head = (
        "arm", "keep", "kept", "epochs", "top-1 % (seeds)", "best top-1 %", "training s, median",
        "epoch s, median (IQR)", "speed-up", "ideal", "vs plain at 1", "vs KD at 1", "pays back after",
        "waiting", "images/s", "bytes read / payload",
    )  # fmt: skip
    return table(head, map(_point, groups))


def _point(group: Group) -> list[str]:
    epoch = group.epoch_seconds
    return [
        series_title(group.arm, group.policy),
        f"{group.keep:g}",
        f"{100 * group.kept_share:.1f} %",
        str(group.epochs),
        percent(group.top1),
        percent(group.best_top1),
        number(group.train_seconds_median),
        f"{number(epoch.median)} ({number(epoch.q1)}-{number(epoch.q3)})",
        factor(group.speedup_training),
        DASH if group.ideal is None else f"{group.ideal:.2f}x",
        factor(group.speedup_vs_plain),
        factor(group.speedup_vs_kd),
        runs_until(group.break_even_arm),
        DASH if group.data_wait_share is None else f"{100 * group.data_wait_share.mean:.1f} %",
        DASH if group.images_per_second is None else number(group.images_per_second.mean),
        DASH if group.read_amplification is None else f"{group.read_amplification.mean:.3f}",
    ]


def _definitions(summary: Summary) -> str:
    arms = "; ".join(f"{arm_title(g.arm)}: {g.settings.summary}" for g in {g.arm: g for g in summary.groups}.values())
    costs = ", ".join(f"{name} {number(seconds)} s" for name, seconds in summary.sweep.costs.items()) or "none"
    lines = [
        f"Arms: {arms}." if arms else "",
        "Speed-up: training seconds (waiting for data and steps) of the same arm on all data, over the run's, by seed. "
        "Ideal: samples the full run saw over samples this one saw, 1/r if exactly r was kept.",
        "vs plain at 1, vs KD at 1: the same ratio of total seconds, training plus all one-off costs each side needs.",
        f"One-off costs: {costs}. Pays back after: runs until scoring and selection are saved again.",
    ]
    return "".join(f'<p class="note">{escape(line)}</p>' for line in lines if line)


def _fits(fits: Sequence[Fit]) -> str:
    if not fits:
        return '<p class="note">At least two keep ratios of one arm are needed to say.</p>'
    rows = []
    for fit in fits:
        residuals = ", ".join(f"{value:+.1f} % at {share:g}" for share, value in fit.residuals.items())
        worst = DASH if fit.worst_percent is None else f"{fit.worst_percent:.1f} %"
        rows.append([arm_title(fit.arm), f"{number(fit.slope)} s", f"{number(fit.constant)} s", worst, residuals])
    head = ("arm", "a (all samples)", "c (constant)", "worst residual", "residuals by share kept")
    note = "Least squares of epoch seconds = a r + c, each error relative to its epoch."
    return f'{table(head, rows)}<p class="note">{note}</p>'


def _equal_time(summary: Summary) -> str:
    if not summary.equal_time:
        return '<p class="note">The equal-time control (arm equal_time) is not part of this sweep.</p>'
    rows = [
        [
            item.policy,
            f"{item.keep:g}",
            f"{item.difference:+.1f}",
            DASH if item.spread is None else f"{item.spread:.1f}",
            f"{item.time_ratio:.2f}",
        ]
        for item in summary.equal_time
    ]
    head = ("policy", "keep", "KD pruned minus control, points", "spread over seeds", "time pruned / control")
    note = "The control distils on all samples for r times the epochs: the same steps, every sample seen less often."
    return f'{table(head, rows)}<p class="note">{note}</p>'


def _ledger(summary: Summary) -> str:
    phases = sorted_phases([name for group in summary.groups for name in group.phases])
    head = ("arm", "keep", *phases, "all", *(f"one-off: {name}" for name in summary.sweep.costs))
    rows = []
    for group in summary.groups:
        cells = [number(group.phases.get(name, 0.0)) for name in phases]
        once = [number(group.one_off[name]) if name in group.one_off else DASH for name in summary.sweep.costs]
        total = number(sum(group.phases.values()))
        rows.append([series_title(group.arm, group.policy), f"{group.keep:g}", *cells, total, *once])
    return table(head, rows)


def _provenance(facts: Any) -> str:
    machine = facts.get("machine") or {}
    store, teacher = facts.get("store") or {}, facts.get("teacher")
    versions = ", ".join(f"{name} {version}" for name, version in (machine.get("versions") or {}).items())
    gpus = ", ".join(machine.get("gpus") or []) or "no GPU"
    cores = machine.get("cores")
    lines = {
        "command": machine.get("command"),
        "machine": f"{machine.get('processor')}, {plural(cores, 'core') if cores else '?'}, {gpus}",
        "system": f"{machine.get('system')}, Python {machine.get('python')}",
        "versions": versions,
        "started": machine.get("started"),
        "store": f"{store.get('train')} training and {store.get('val')} validation samples, "
        f"{store.get('classes')} classes, fingerprint {store.get('fingerprint')}",
        "teacher": json.dumps(teacher) if teacher else "none",
        "logit reshaping": "on" if facts.get("reshaping") else "off",
        "seeds": ", ".join(map(str, facts.get("seeds", []))),
    }
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in lines.items())
    recipe = escape(json.dumps(facts.get("recipe"), indent=2))
    return f"<dl>{items}</dl><details><summary>Recipe</summary><pre>{recipe}</pre></details>"
