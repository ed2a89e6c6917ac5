"""The report as Markdown, for a pull request or a log."""

from collections.abc import Iterable, Sequence

from prunekd.reporting.aggregate import Summary
from prunekd.reporting.claims import check_claims
from prunekd.reporting.headline import headline
from prunekd.reporting.sections import POINT_COLUMNS, point_row


def render_markdown(summaries: Sequence[Summary]) -> str:
    """Headline, claims and every point of each sweep."""
    return "\n".join(line for summary in summaries for line in _sweep(summary))


def _sweep(summary: Summary) -> Iterable[str]:
    title, *others = headline(summary)
    machine = summary.sweep.facts.get("machine") or {}
    yield f"# {summary.sweep.path.name}: {title}\n"
    yield from (f"{sentence}\n" for sentence in others)
    if summary.sweep.missing:
        yield f"Missing: {', '.join(summary.sweep.missing)}.\n"
    claims = [(claim.paper, claim.text, claim.measured, claim.verdict) for claim in check_claims(summary)]
    yield from _table(("paper", "claims", "measured here", "verdict"), claims)
    yield from _table(POINT_COLUMNS, map(point_row, summary.groups))
    versions = ", ".join(f"{name} {version}" for name, version in (machine.get("versions") or {}).items())
    gpus = ", ".join(machine.get("gpus") or []) or "no GPU"
    where = f"{machine.get('processor')}, {machine.get('cores')} cores, {gpus}"
    yield f"`{machine.get('command')}` on {where}; {versions}\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    yield ""
