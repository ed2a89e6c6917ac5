"""Numbers and names as the report writes them."""

import math

from prunekd.reporting.stats import Stat
from prunekd.sweep.arms import ARMS

DASH = "-"


def arm_title(arm: str) -> str:
    """An arm's name as a reader sees it; one the report does not know keeps its own."""
    return ARMS[arm].title if arm in ARMS else arm


def series_title(arm: str, policy: str) -> str:
    """A line of a figure: the arm, and the policy where one selected."""
    title = arm_title(arm)
    return title if policy == "all" or title.endswith(f", {policy}") else f"{title}, {policy}"


def plural(count: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def number(value: float) -> str:
    """Three significant digits without exponents: 0.0123, 1.23, 12.3, 123, 12,345."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}"


def ratio(value: float) -> str:
    """`0.53x`."""
    return f"{value:.2f}x"


def points(value: float) -> str:
    """Percentage points: `0.8 points`."""
    return "1.0 point" if f"{value:.1f}" == "1.0" else f"{value:.1f} points"


def percent(stat: Stat | None, digits: int = 1) -> str:
    """`91.2 +- 0.3 (3)` in percent; without spread for one value."""
    if stat is None:
        return DASH
    spread = "" if stat.sd is None else f" ± {100 * stat.sd:.{digits}f}"
    return f"{100 * stat.mean:.{digits}f}{spread} ({stat.n})"


def factor(stat: Stat | None) -> str:
    """`1.87 +- 0.02x`."""
    if stat is None:
        return DASH
    return f"{stat.mean:.2f}{'' if stat.sd is None else f' ± {stat.sd:.2f}'}x"


def runs_until(count: float | None) -> str:
    """Break-even as words; None is nothing to pay back."""
    if count is None:
        return DASH
    return "never" if count == math.inf else plural(math.ceil(count), "run")
