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
        r"train .*: out/run exists and is not empty",
        "a run killed before its run.json is whole is taken for another folder",
    ),
    (
        r"bench .*result.json does not exist",
        "a run of a sweep killed between its last step and its result is not resumed",
    ),
    (
        r"(disk full|target fails) .*a traceback,.*prunekd: error: ",
        "TensorBoard's thread prints a traceback of its own",
    ),
    (
        r"(disk full|target fails) .*exists; choose another name",
        "a finished store whose last fsync failed keeps its journal",
    ),
    (r"features.npy: .*TokenError", "NumPy's parser of headers"),
    (r"an error of several lines", "messages of Arrow and of the YAML parser are passed on as they are"),
)


def known(tally: Tally, found: str) -> str:
    """The reason why this stays, empty if it is new."""
    text = f"{tally.attack}, {tally.verb} {tally.file}: {found}"
    return next((reason for pattern, reason in KNOWN if re.search(pattern, text)), "")
