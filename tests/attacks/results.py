"""What files say, for comparing a disturbed run with an undisturbed one; and the table of what happened."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

# measured anew in every run, so never compared
MEASURED = re.compile(
    r"second|time|speed|per_|wait|ledger|bytes|cost|images|phases|share|started|pid|date|began|ended|resumed|digest|imports|other"
)
LEFT = "left over:"
UNCOMPARED = (".html", ".png", ".md", ".csv")  # pictures and tables of measured times


def contents(folder: Path) -> dict[str, str]:
    """Everything below `folder` that is promised to be the same each time: file, or file and JSON key, to its value."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or "tensorboard" in name or path.name in ("lock", "held.json"):
            continue
        found[name] = "file"
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            for number, line in enumerate(lines):
                found.update(_leaves(json.loads(line), f"{name}:{number}"))
        elif path.suffix == ".parquet" and not name.endswith(".index.parquet"):
            found.update(
                {f"{name}:{column}": repr(values) for column, values in pq.read_table(path).to_pydict().items()}
            )
        elif path.suffix == ".safetensors":
            sums = {key: tensor.astype(float).sum() for key, tensor in load_file(path).items()}
            found[f"{name}:sums"] = repr([float(sums[key]) for key in sorted(sums)])
        elif path.suffix not in UNCOMPARED:
            found[f"{name}:bytes"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _leaves(value: object, name: str) -> dict[str, str]:
    if MEASURED.search(name.rpartition(":")[2]) or "at_epoch_start" in name:
        return {}
    if isinstance(value, dict):
        return {leaf: text for key, inner in value.items() for leaf, text in _leaves(inner, f"{name}.{key}").items()}
    if isinstance(value, list):
        return {leaf: text for i, inner in enumerate(value) for leaf, text in _leaves(inner, f"{name}.{i}").items()}
    return {name: repr(value)}


def _same(one: str, other: str) -> bool:
    """Whether two values are equal; fractions may differ in what rounding does to them in two runs."""
    if one == other or "." not in one:
        return one == other
    try:
        return np.allclose(json.loads(one), json.loads(other), rtol=1e-3, atol=1e-3, equal_nan=True)
    except (ValueError, TypeError):
        return False


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a command leaves when nothing goes wrong: the values two runs of it agree in."""

    values: dict[str, str]
    varying: frozenset[str]

    @classmethod
    def of(cls, first: dict[str, str], second: dict[str, str]) -> "Undisturbed":
        """From two undisturbed results."""
        varying = {key for key in first.keys() | second.keys() if not _same(first.get(key, ""), second.get(key, ""))}
        return cls(values={k: v for k, v in first.items() if k not in varying}, varying=frozenset(varying))

    def difference(self, found: dict[str, str], but: str = "") -> str:
        """The first thing in which `found` is another result, empty if it is the same; what begins with `but` aside."""
        for key, value in self.values.items():
            if not _same(value, found.get(key, "")) and not (but and key.startswith(but)):
                return f"{key} differs: {value[:60]} became {found.get(key, 'nothing')[:60]}"
        more = sorted(key for key in found if found[key] == "file" and key not in self.values)
        return f"{LEFT} {', '.join(more)}"[:200] if more else ""


@dataclass(slots=True)
class Tally:
    """Counts of one kind of attack on one file or verb, and what went wrong, in words."""

    attack: str
    verb: str
    file: str
    counts: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, outcome: str, what: str = "") -> None:
        """Count an outcome, one of COLUMNS; `what` says how something is wrong."""
        if LEFT in what and outcome == "wrong":
            outcome = "left over"
        self.counts["tried"] += 1
        self.counts[outcome] += 1
        if outcome in ("wrong", "left over"):
            self.wrong.append(what)


COLUMNS = ("tried", "refused", "recovered", "harmless", "warned", "believed", "left over", "wrong")


def table(tallies: list[Tally]) -> str:
    """All counts as a Markdown table."""
    lines = ["| attack | verb | file | " + " | ".join(COLUMNS) + " |", "|---|---|---|" + "---:|" * len(COLUMNS)]
    for tally in tallies:
        cells = (str(tally.counts[name]) for name in COLUMNS)
        lines.append(f"| {tally.attack} | {tally.verb} | {tally.file} | " + " | ".join(cells) + " |")
    total = sum((tally.counts for tally in tallies), Counter())
    lines.append("| all | | | " + " | ".join(str(total[name]) for name in COLUMNS) + " |")
    return "\n".join(lines)
