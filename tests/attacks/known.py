"""What the attacks are known to find, with the reason why it stays; docs/reliability.md says the same to users."""

import re

from attacks.results import Tally

# (pattern of what is found, reason)
KNOWN = (
    (
        r"left over: .*(\.tmp|\.partial/)",
        "what a killed process was writing stays beside the target under a hidden name",
    ),
    (r"an error of several lines", "messages of Arrow and of the YAML parser are passed on as they are"),
)


def known(tally: Tally, found: str) -> str:
    """The reason why this stays, empty if it is new."""
    text = f"{tally.attack}, {tally.verb} {tally.file}: {found}"
    return next((reason for pattern, reason in KNOWN if re.search(pattern, text)), "")
