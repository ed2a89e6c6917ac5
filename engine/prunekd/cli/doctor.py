"""`prunekd doctor`."""

from dataclasses import asdict

import click

from prunekd.cli._shared import JSON, emit


@click.command("doctor")
@click.option("--need", "needed", multiple=True, metavar="NAME", help="Fail if this is missing (repeat it).")
@JSON
def command(needed: tuple[str, ...], as_json: bool) -> None:
    """List what prunekd finds on this machine, and the command that installs what is missing.

    \b
    Example:
      prunekd doctor
      prunekd doctor --need GPU --need DALI
    """
    from prunekd.api.doctor import examine, require

    findings = examine()
    lines = []
    for item in findings:
        lines.append(f"{'ok     ' if item.found else 'missing'}  {item.name:<20} {item.detail}")
        if item.remedy:
            lines.append(f"{'':9}{'':<20} install: {item.remedy}")
    emit([asdict(item) for item in findings], as_json, "\n".join(lines))
    require(findings, needed)
