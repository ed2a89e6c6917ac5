"""The page's tables and texts, each a piece of HTML; everything that comes from a sweep is escaped."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from prunekd.reporting.aggregate import Summary
from prunekd.reporting.claims import FAILED, HELD, UNTESTED, check_claims
from prunekd.reporting.controls import Fit
from prunekd.reporting.group import Group
from prunekd.reporting.results import Process, overlap_note, timing_note
from prunekd.reporting.stats import UNDECIDED
from prunekd.reporting.style import sorted_phases
from prunekd.reporting.tables import run_row
from prunekd.reporting.wording import DASH, arm_title, factor, number, percent, plural, runs_until, series_title

POINT_COLUMNS = (
    "arm", "keep", "seen", "epochs", "top-1 % (seeds)", "best top-1 %", "training s, median", "epoch s, median (IQR)",
    "one-off s", "speed-up", "ideal", "with one-off costs", "vs plain at 1", "vs KD at 1", "pays back after",
    "vs plain pays back after",
    "waiting", "images/s", "bytes read / payload",
)  # fmt: skip


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """An HTML table that scrolls sideways where it is too wide; cells are escaped."""
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    tag = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="scroll">{tag}<thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>'


def note(text: str) -> str:
    """A paragraph in small print."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def warnings(summary: Summary) -> str:
    """What must not be overlooked: extrapolation, runs that are missing, runs that do not belong."""
    sweep = summary.sweep
    lines = [timing_note(sweep) or "", overlap_note(sweep) or ""]
    if sweep.missing:
        lines.append(f"Missing, not in any figure: {', '.join(sweep.missing)}.")
    if sweep.unlisted:
        lines.append(f"On disk, but not part of the sweep: {', '.join(sweep.unlisted)}.")
    replaced, skipped = (int(sum(getattr(run, name) or 0 for run in sweep.runs)) for name in ("replaced", "skipped"))
    if replaced or skipped:
        lines.append(
            f"Samples that could not be decoded, over all runs and epochs: {replaced} replaced by others, "
            f"{skipped} left out."
        )
    return "".join(f'<p class="warn">{escape(line)}</p>' for line in lines if line)


def claims(summary: Summary) -> str:
    """The papers' claims with what was measured here."""
    found = check_claims(summary)
    rows = [(claim.paper, claim.text, claim.measured, claim.verdict) for claim in found]
    html = table(("paper", "claims", "measured here", "verdict"), rows, "words")
    for verdict, kind in ((HELD, "held"), (FAILED, "failed"), (UNDECIDED, "unclear"), (UNTESTED, "unclear")):
        html = html.replace(f"<td>{verdict}</td>", f'<td class="{kind}">{verdict}</td>')
    return html + note(
        "A difference in accuracy counts only beyond its noise: the standard deviation over seeds of that difference, "
        "and the error that the size of the validation split leaves. Within it, or with one seed, it is not decided. A "
        "time counts as reached within 5 %. The papers' own data and "
        "networks may be others than this sweep's."
    )


def point_row(group: Group) -> list[str]:
    """One group as cells of POINT_COLUMNS."""
    epoch = group.epoch_seconds
    return [
        series_title(group.arm, group.policy),
        f"{group.keep:g}",
        f"{100 * group.kept_share:.1f} %",
        str(group.epochs),
        percent(group.top1),
        percent(group.best_top1),
        number(group.train_seconds_median) + (" (extrapolated)" if group.extrapolated else ""),
        f"{number(epoch.median)} ({number(epoch.q1)}-{number(epoch.q3)})",
        number(sum(group.one_off.values())) if group.one_off else DASH,
        factor(group.speedup_training),
        DASH if group.ideal is None else f"{group.ideal:.2f}x",
        factor(group.speedup_total),
        factor(group.speedup_vs_plain),
        factor(group.speedup_vs_kd),
        runs_until(group.break_even_arm),
        runs_until(group.break_even_plain),
        DASH if group.data_wait_share is None else f"{100 * group.data_wait_share.mean:.1f} %",
        DASH if group.images_per_second is None else number(group.images_per_second.mean),
        DASH if group.read_amplification is None else f"{group.read_amplification.mean:.3f}",
    ]


def definitions(summary: Summary) -> str:
    """What the columns of the points mean."""
    arms = "; ".join(f"{arm_title(g.arm)}: {g.settings.summary}" for g in {g.arm: g for g in summary.groups}.values())
    costs = ", ".join(f"{name} {number(seconds)} s" for name, seconds in summary.sweep.costs.items()) or "none"
    lines = [
        f"Arms: {arms}." if arms else "",
        "Speed-up: training seconds (waiting for data and steps) of the same kind of run on all data, over the run's, "
        "by seed. Ideal: samples the full run saw over samples this one saw, 1/r if exactly r was kept.",
        "With one-off costs, vs plain at 1, vs KD at 1: the same ratio of total seconds, training plus all one-off "
        "costs each side needs.",
        f"One-off costs of the sweep: {costs}; soft labels are counted for the kept samples alone. Pays back after: "
        "runs until what was done once beyond the own needs of the full run (of the plain full run) is saved again.",
    ]
    return "".join(map(note, lines))


def every_run(summary: Summary) -> str:
    """All numbers of all runs, folded away."""
    rows = [run_row(run) for run in summary.sweep.runs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    return f"<details><summary>Every run, every number</summary>{table(columns, cells)}</details>" if rows else ""


def _cell(value: Any) -> str:
    if value is None:
        return DASH
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def fits(found: Sequence[Fit]) -> str:
    """The lines through the epochs' seconds."""
    if not found:
        return note("At least two keep ratios of one arm are needed to say.")
    rows = []
    for fit in found:
        residuals = ", ".join(f"{value:+.1f} % at {share:.3g}" for share, value in fit.residuals.items())
        worst = DASH if fit.worst_percent is None else f"{fit.worst_percent:.1f} %"
        rows.append([arm_title(fit.arm), f"{number(fit.slope)} s", f"{number(fit.constant)} s", worst, residuals])
    head = ("arm", "a (all samples)", "c (constant)", "worst residual", "residuals by share seen")
    return table(head, rows) + note("Least squares of epoch seconds = a r + c, each error relative to its epoch.")


def equal_time(summary: Summary) -> str:
    """Pruned runs against the control of the same time."""
    if not summary.equal_time:
        return note("The equal-time control (arm equal_time) is not part of this sweep, or has no accuracy.")
    rows = [
        [
            series_title(item.arm, item.policy),
            f"{item.keep:g}",
            f"{item.difference:+.1f}",
            DASH if item.spread is None else f"{item.spread:.1f}",
            DASH if item.noise is None else f"{item.noise:.1f}",
            item.verdict,
            f"{item.time_ratio:.2f}",
        ]
        for item in summary.equal_time
    ]
    head = (
        "arm", "keep", "pruned minus control, points", "spread over seeds", "noise with validation split",
        "pruned is", "time pruned / control",
    )  # fmt: skip
    return table(head, rows) + note(
        "The control distils on all samples for r times the epochs: the same steps, every sample seen less often."
    )


def ledger(summary: Summary) -> str:
    """Seconds by phase."""
    phases = sorted_phases([name for group in summary.groups for name in group.phases])
    head = ("arm", "keep", *phases, "all", *(f"one-off: {name}" for name in summary.sweep.costs))
    rows = []
    for group in summary.groups:
        cells = [number(group.phases.get(name, 0.0)) for name in phases]
        once = [number(group.one_off[name]) if name in group.one_off else DASH for name in summary.sweep.costs]
        total = number(sum(group.phases.values()))
        rows.append([series_title(group.arm, group.policy), f"{group.keep:g}", *cells, total, *once])
    return table(head, rows) + _processes(summary.sweep.processes)


def _processes(processes: Sequence[Process]) -> str:
    """Where the wall-clock of the sweep itself went."""
    if not processes:
        return ""
    phases = sorted_phases([name for process in processes for name in process.seconds])
    rows = [
        [str(at), *(number(one.seconds.get(name, 0.0)) for name in phases), number(sum(one.seconds.values()))]
        for at, one in enumerate(processes, 1)
    ]
    return note("The processes that worked on the sweep, each from its start to its end, in seconds:") + table(
        ("process", *phases, "all"), rows
    )


def provenance(facts: Any) -> str:
    """Commands, hardware, versions, settings."""
    machine = facts.get("machine") or {}
    store, teacher = facts.get("store") or {}, facts.get("teacher")
    versions = ", ".join(f"{name} {version}" for name, version in (machine.get("versions") or {}).items())
    gpus = ", ".join(machine.get("gpus") or []) or "no GPU"
    cores = machine.get("cores")
    commands = facts.get("commands") or [machine]
    lines = {
        "commands": "; ".join(f"{item.get('command')} ({item.get('started')})" for item in commands),
        "machine": f"{machine.get('processor')}, {plural(cores, 'core') if cores else '?'}, {gpus}",
        "system": f"{machine.get('system')}, Python {machine.get('python')}",
        "versions": versions,
        "store": f"{store.get('train')} training and {store.get('val')} validation samples, "
        f"{store.get('classes')} classes, fingerprint {store.get('fingerprint')}",
        "page cache": "dropped before every epoch" if facts.get("cold") else "as it was (warm after the first epoch)",
        "teacher": json.dumps(teacher) if teacher else "none",
        "logit reshaping": "on" if facts.get("reshaping") else "off",
        "seeds": ", ".join(map(str, facts.get("seeds", []))),
    }
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in lines.items())
    recipe = escape(json.dumps(facts.get("recipe"), indent=2))
    return f"<dl>{items}</dl><details><summary>Recipe</summary><pre>{recipe}</pre></details>"
