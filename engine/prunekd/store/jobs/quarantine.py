"""Inputs that cannot be read: some are left out, many mean that something else is wrong."""

from collections.abc import Sequence

from prunekd.store.jobs.settings import ConvertSettings

LISTED = 3  # of them are named


def check_quarantined(split: str, found: Sequence[dict[str, str]], inputs: int, settings: ConvertSettings) -> None:
    """Raise ValueError if more of the `inputs` of a split are unreadable than `max_quarantined` allows.

    Args:
        found: {key, reason} of those found so far.
    """
    allowed = settings.allowed(inputs)
    if len(found) <= allowed:
        return
    first = "; ".join(f"{one['key']}: {one['reason']}" for one in found[:LISTED])
    most = settings.max_quarantined
    stated = f"{100 * most:.4g}%" if isinstance(most, float) else str(most)
    raise ValueError(
        f"{len(found)} of the {inputs} inputs of {split} cannot be read so far, and at most {allowed} may be "
        f"(max_quarantined {stated}): {first}; mend the source, or allow more with --max-quarantined 10% (a share) or "
        "100 (a count); what is converted so far is kept"
    )
