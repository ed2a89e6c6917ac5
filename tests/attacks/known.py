"""What the attacks are known to find, with the reason why it stays; docs/reliability.md says the same to users."""

import re

from attacks.results import Tally

# (pattern of what is found, reason)
KNOWN = (
    (
        r"left over: .*(\.tmp|\.partial/)",
        "what a killed process was writing stays beside the target under a hidden name",
    ),
    (
        r"(disk full|target fails) .*a traceback,.*prunekd: error: ",
        "TensorBoard's thread prints a traceback of its own",
    ),
    (
        r"(disk full|target fails) .*exists; choose another name",
        "a finished store whose last fsync failed keeps its journal",
    ),
)


def known(tally: Tally, found: str) -> str:
    """The reason why this stays, empty if it is new."""
    text = f"{tally.attack}, {tally.verb} {tally.file}: {found}"
    return next((reason for pattern, reason in KNOWN if re.search(pattern, text)), "")
