"""Colours of the figures: one set of roles, drawn once, coloured by the page's light or dark scheme.

For the page, matplotlib draws in sentinel colours which `to_variables` turns into CSS variables, so that one SVG
serves both schemes. Hues are Okabe and Ito's (safe for the colour-blind), set darker on white and lighter on black;
policies of an arm share its hue and differ in marker and dash.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunekd.common.ledger import PHASES

ARM_ROLES = {
    "plain": 0, "kd": 1, "equal_time": 2, "medium": 3, "infobatch": 4, "random": 5, "rs2": 6, "kd_cached": 7,
}  # fmt: skip
_OWN_HUES = (9, 10, 8)  # for arms of the user's own, before those of known arms that are not shown

LIGHT = {
    "ink": "#1b1f24",
    "muted": "#59636e",
    "grid": "#e4e7eb",
    "paper": "#ffffff",
    "s0": "#c25400",
    "s1": "#0067a8",
    "s2": "#00825f",
    "s3": "#9c4a84",
    "s4": "#7a6500",
    "s5": "#3a8fc2",
    "s6": "#b3261e",
    "s7": "#5d5bd0",
    "s8": "#6b4f3a",
    "s9": "#00838f",
    "s10": "#ad1457",
    "p0": "#0067a8",
    "p1": "#e09a1a",
    "p2": "#00825f",
    "p3": "#b8568f",
    "p4": "#8d97a3",
    "p5": "#6cb8e6",
    "p6": "#5d5bd0",
    "p7": "#b9c0c8",
    "p8": "#c25400",
    "p9": "#a08a00",
    "p10": "#7b2f8c",
    "p11": "#d9705a",
    "p12": "#6f4e37",
    "p13": "#b59a7a",
}
DARK = {
    "ink": "#e8ebee",
    "muted": "#9aa4af",
    "grid": "#2e353d",
    "paper": "#14181d",
    "s0": "#ff9350",
    "s1": "#5cb8f2",
    "s2": "#3fcf9f",
    "s3": "#e29acb",
    "s4": "#d8c24a",
    "s5": "#9bd3f5",
    "s6": "#ff8b80",
    "s7": "#aaa8ff",
    "s8": "#c9a98c",
    "s9": "#4dd0e1",
    "s10": "#f48fb1",
    "p0": "#3f9bd8",
    "p1": "#efb04a",
    "p2": "#2fb588",
    "p3": "#d182b4",
    "p4": "#76808b",
    "p5": "#a5d8f5",
    "p6": "#9a98f5",
    "p7": "#59636e",
    "p8": "#ee8447",
    "p9": "#d8c24a",
    "p10": "#b67ac6",
    "p11": "#f0a08f",
    "p12": "#a5805f",
    "p13": "#d6c0a4",
}
# the phases in the order of their colours p0, p1, ...
_PHASES = (
    "step", "data_wait", "eval", "checkpoint", "other", "setup", "compile", "imports", "score", "teacher", "select",
    "labels", "convert", "compact",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Palette:
    """A colour for every role of LIGHT and DARK."""

    colours: Mapping[str, str]

    def __getitem__(self, role: str) -> str:
        return self.colours[role]

    def arm(self, arm: str, arms: Sequence[str]) -> str:
        """The arm's hue: fixed for the known arms, in order for others (of `arms`, all that are shown)."""
        return self[arm_role(arm, arms)]

    def phase(self, phase: str) -> str:
        """The colour of a ledger phase."""
        return self[phase_role(phase)]


def phase_role(phase: str) -> str:
    """The role of a ledger phase's colour; one that is not known looks like `other`."""
    return f"p{_PHASES.index(phase if phase in _PHASES else 'other')}"


def arm_role(arm: str, arms: Sequence[str]) -> str:
    """The role of an arm's hue; arms of the user's own take those that no known arm shown has."""
    if arm in ARM_ROLES:
        return f"s{ARM_ROLES[arm]}"
    taken = {ARM_ROLES[name] for name in arms if name in ARM_ROLES}
    free = [*_OWN_HUES, *(role for role in ARM_ROLES.values() if role not in taken)]
    others = [name for name in arms if name not in ARM_ROLES]
    return f"s{free[others.index(arm) % len(free)]}"


def sentinels() -> Palette:
    """Stand-in colours, one a role, that no figure uses otherwise."""
    return Palette({role: f"#fe01{at:02x}" for at, role in enumerate(LIGHT)})


def to_variables(svg: str) -> str:
    """Replace the stand-in colours of an SVG by `var(--role)`."""
    roles = {colour: role for role, colour in sentinels().colours.items()}
    return re.sub(r"#fe01[0-9a-f]{2}", lambda match: f"var(--{roles[match[0]]})", svg)


def css_variables(colours: Mapping[str, str]) -> str:
    """Declarations for a `:root` block."""
    return "".join(f"--{role}:{colour};" for role, colour in colours.items())


def sorted_phases(phases: Sequence[str]) -> list[str]:
    """The ledger's order, then unknown ones by name."""
    order = {name: at for at, name in enumerate(PHASES)}
    return sorted(dict.fromkeys(phases), key=lambda name: (order.get(name, len(order)), name))
