"""The tables of `prunekd inspect` and `prunekd compare`."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunekd.common.distribution import Distribution
from prunekd.pruning.compare import Comparison
from prunekd.pruning.facts import ScoresFacts, SubsetFacts
from prunekd.reporting.run_folder import RunFacts
from prunekd.store import Store
from prunekd.store.jobs.compaction_cost import CompactionCost, ReaderCost
from prunekd.store.jobs.facts import StoreFacts
from prunekd.store.jobs.room import human_bytes as _bytes

LONGEST = 20  # rows of a list shown in full
NARROW = 80  # columns; in fewer, a table that does not fit is shown row by row


def render(facts: object, path: Path | None = None) -> str:
    """What `prunekd inspect` or `compare` found as text, in colour where stdout is a terminal.

    Args:
        facts: StoreFacts, ScoresFacts, SubsetFacts, RunFacts or a Comparison.
        path: of a scores file or a subset, for the title.
    """
    console = Console()
    drawn = Console(
        file=io.StringIO(),
        width=console.width if console.is_terminal else 120,
        force_terminal=console.is_terminal,
        color_system="auto" if console.is_terminal else None,
    )
    for table in _tables(facts, path):
        too_wide = (
            table.show_header
            and drawn.measure(table, options=drawn.options.update(max_width=1000)).maximum > drawn.width
        )
        drawn.print(_stacked(table) if too_wide and drawn.width < NARROW else table)
    assert isinstance(drawn.file, io.StringIO)
    return "\n".join(line.rstrip() for line in drawn.file.getvalue().splitlines()).strip("\n")


@singledispatch
def _tables(facts: object, path: Path | None) -> Iterable[Table]:
    raise AssertionError(f"no tables for {type(facts).__name__}")


@_tables.register
def _store(facts: StoreFacts, path: Path | None) -> Iterable[Table]:
    store = facts.store
    yield _pairs(
        f"Store {store.path}",
        {
            "classes": f"{len(store.classes)}: {_listed(store.classes, 8)}",
            "fingerprint": store.fingerprint,
            "source": _plain(store.source),
            "settings": _plain(store.settings),
            "quarantined": len(store.quarantined),
            **_compacted(store),
            **({} if facts.damaged is None else {"verified": f"{len(facts.damaged)} damaged samples"}),
        },
    )
    yield _grid(
        "Splits",
        ["", "samples", "per class", "payload", "file", "jpeg", "raw", "width (median)", "height (median)"],
        [
            [
                name,
                f"{split.samples:,}",
                f"{min(split.class_sizes):,} to {max(split.class_sizes):,}",
                _bytes(split.payload_bytes),
                _bytes(split.file_bytes),
                f"{split.jpeg:,}",
                f"{split.raw:,}",
                _range(split.width),
                _range(split.height),
            ]
            for name, split in facts.splits.items()
        ],
    )
    yield from _bad("Quarantined", [(one.get("split", ""), one["key"], one["reason"]) for one in store.quarantined])
    yield from _bad("Damaged", [(one.split, one.key, one.reason) for one in facts.damaged or ()])
    if facts.compaction is not None:
        yield from _compaction(facts.compaction)


def _bad(title: str, found: Sequence[tuple[str, str, str]]) -> Iterable[Table]:
    if found:
        rows = [list(one) for one in found[:LONGEST]]
        left = len(found) - len(rows)
        yield _grid(title, ["split", "key", "reason"], rows + ([["", f"and {left} more", ""]] if left else []))


def _compacted(store: Store) -> dict[str, str]:
    if store.compacted is None:
        return {}
    parent, split = store.compacted["parent"], store.compacted["split"]
    return {"compacted from": f"{parent.get('path', 'a store')} ({store.whole(split):,} samples in {split})"}


def _compaction(cost: CompactionCost) -> Iterable[Table]:
    yield _pairs(
        f"Compacting to {cost.kept:,} samples, {_bytes(cost.kept_bytes)}, for {cost.epochs} epochs",
        {
            "storage": f"{cost.storage} by the system's word ({cost.file_system})",
            "rests on": "offsets and sizes in the index (nothing is measured); samples read in random order; what was "
            f"read staying in memory as far as {_bytes(cost.memory)} hold it",
        },
    )
    yield _grid(
        "Bytes read from this storage in all epochs",
        ["read by", "as it is", "compacted", "to copy", "net saving", "pays"],
        [
            [
                name,
                _bytes(one.bytes_before),
                _bytes(one.bytes_after),
                _bytes(one.bytes_copied),
                _signed(one.bytes_saved),
                _pays(one),
            ]
            for name, one in cost.readers.items()
        ],
    )


def _signed(count: int) -> str:
    return f"-{_bytes(-count)}" if count < 0 else _bytes(count)


def _pays(cost: ReaderCost) -> str:
    start = cost.pays_from_epochs
    if start is None:
        return "never"
    return f"{'yes' if cost.pays else 'no'}, from {'the first epoch' if start == 1 else f'{start} epochs'}"


@_tables.register
def _scores(facts: ScoresFacts, path: Path | None) -> Iterable[Table]:
    about = {"samples": facts.samples, "classes": facts.classes, **facts.provenance}
    yield _pairs(f"Scores {path}", {name: _plain(value) for name, value in about.items()})
    rows = [(column.definition, column.hard_end or "-", column.values) for column in facts.columns.values()] + [
        ("class_std (per class)", "-", facts.class_std)
    ]
    names = ("min", "q25", "median", "q75", "max", "mean", "not_finite")
    yield _grid(
        "Columns",
        ["definition", "hard end", *names],
        [[definition, hard, *(_number(getattr(values, name)) for name in names)] for definition, hard, values in rows],
    )


@_tables.register
def _subset(facts: SubsetFacts, path: Path | None) -> Iterable[Table]:
    info = facts.subset.info
    yield _pairs(
        f"Subset {path}",
        {
            "kept": f"{info['kept']:,} of {info['total']:,} ({facts.share:.2%}; asked for {info['keep']:.2%})",
            "policy": f"{info['policy']}, ranked by {info['score_definition'] or 'nothing'}, "
            f"balance {info['balance']}, seed {info['seed']}",
            "parameters": _plain(info["parameters"]) or "none",
            "scored by": _plain(info["scored_by"]) if info["scored_by"] else "-",
            "weights": "no" if facts.subset.weights is None else "yes",
            "split": info["split"],
            "store": f"{info['store']['path']} ({info['store']['classes']} classes)",
            "fingerprint": info["fingerprint"],
            "share kept per class": _range(facts.class_share, "{:.1%}"),
            "contact sheet": facts.contact_sheet or "-",
        },
    )
    yield _classes(facts)
    if facts.mean_scores is not None:
        rows = [[name, _number(mean.kept), _number(mean.dropped)] for name, mean in facts.mean_scores.items()]
        yield _grid("Mean scores", ["", "kept", "dropped"], rows)


def _classes(facts: SubsetFacts) -> Table:
    counts, totals = facts.subset.info["class_counts"], facts.subset.info["class_totals"]
    names = facts.class_names or [str(k) for k in range(len(counts))]
    by_share = sorted((k for k in range(len(counts)) if totals[k]), key=lambda k: (counts[k] / totals[k], k))
    rows = [[names[k], f"{counts[k]:,}", f"{totals[k]:,}", f"{counts[k] / totals[k]:.1%}"] for k in by_share]
    title = "Classes"
    if len(rows) > LONGEST:
        half = LONGEST // 2
        rows = [*rows[:half], ["...", "", "", ""], *rows[-half:]]
        title = f"Classes kept the least and the most, of {len(by_share)}"
    return _grid(title, ["class", "kept", "of", "share"], rows)


@_tables.register
def _run(facts: RunFacts, path: Path | None) -> Iterable[Table]:
    apart = ("format", "version", "machine", "recipe")
    told = {key: _plain(value) for key, value in facts.run.items() if key not in apart}
    yield _pairs(f"Run {facts.path}", {**told, "checkpoints": ", ".join(facts.checkpoints) or "none"})
    yield _pairs("Recipe", dict(_dotted(_mapping(facts.run.get("recipe")))))
    if facts.result is None:
        done = len(facts.epochs)
        yield _pairs("Not finished", {"epochs done": done, "go on with": "prunekd train ... --resume auto"})
    else:
        shown = {key: _plain(value) for key, value in facts.result.items() if key not in ("ledger", "epoch_seconds")}
        yield _pairs("Result", shown)
        ledger = _mapping(facts.result.get("ledger"))
        seconds = {name: f"{value:.2f}" for name, value in _mapping(ledger.get("seconds")).items()}
        yield _pairs("Ledger (seconds)", {**seconds, "wall": f"{ledger.get('wall_seconds', 0):.2f}"})
    if facts.epochs:
        last = facts.epochs[-LONGEST:]
        keys = [key for key in last[-1] if key not in ("kind", "step")]
        every = len(last) == len(facts.epochs)
        title = "Epochs" if every else f"Epochs (the last {len(last)} of {len(facts.epochs)})"
        yield _grid(title, keys, [[_number(record.get(key)) for key in keys] for record in last])


@_tables.register
def _comparison(facts: Comparison, path: Path | None) -> Iterable[Table]:
    names = facts.names
    sizes = [
        [
            name,
            facts.policies[k],
            f"{facts.sizes[k]:,}",
            f"{facts.sizes[k] / facts.total:.1%}",
            f"{min(facts.class_counts[k])} to {max(facts.class_counts[k])}",
            f"{facts.class_distance[k]:.3f}",
        ]
        for k, name in enumerate(names)
    ]
    header = ["subset", "policy", "samples", "of all", "per class", "distance to the whole set's classes"]
    yield _grid("Subsets", header, sizes)
    for key, title in (
        ("of_smaller", "Shared samples, of the smaller subset"),
        ("by_chance", "The same for independent draws"),
        ("jaccard", "Jaccard index"),
        ("rank_correlation", "Rank correlation of the shared samples"),
    ):
        values = [[getattr(pair, key) for pair in row] for row in facts.pairs]
        rows = [[name, *("-" if v is None else f"{v:.3f}" for v in values[k])] for k, name in enumerate(names)]
        yield _grid(title, ["", *names], rows)
    if facts.difficulty is not None:
        rows = [[name, *(f"{v:.1%}" for v in facts.difficulty.share[k])] for k, name in enumerate(names)]
        title = f"Share of each subset by tenths of {facts.difficulty.score}, easy to hard"
        yield _grid(title, ["", *(str(k) for k in range(1, len(rows[0])))], rows)
    drawn: dict[str, object] = {} if facts.picture is None else {"picture": facts.picture}
    if facts.contact_sheets is not None:
        drawn["contact_sheets"] = _listed(facts.contact_sheets, 8)
    if drawn:
        yield _pairs("Pictures", drawn)


def _pairs(title: str, values: Mapping[str, object]) -> Table:
    table = Table(title=Text(f"\n{title}"), title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(Text(name), Text(str(value)))
    return table


def _grid(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(f"\n{title}"), title_justify="left", title_style="bold")
    for k, name in enumerate(header):
        numeric = k > 0 and all(row[k][:1].isdigit() or row[k][:1] in "-" for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _stacked(table: Table) -> Table:
    """The rows of a table one below the other, each as `column value` lines."""
    stacked = Table(title=table.title, title_justify="left", title_style="bold", show_header=False, box=None)
    stacked.add_column(style="cyan", overflow="fold")
    stacked.add_column(overflow="fold")
    for number, cells in enumerate(zip(*(column.cells for column in table.columns), strict=True)):
        if number:
            stacked.add_row("", "")
        for column, cell in zip(table.columns, cells, strict=True):
            stacked.add_row(column.header, cell)
    return stacked


def _plain(value: object) -> str:
    """A value in one line: mappings as `name value` pairs, nested ones as JSON."""
    if isinstance(value, dict):
        return ", ".join(
            f"{k} {json.dumps(v) if isinstance(v, (dict, list)) else _number(v)}" for k, v in value.items()
        )
    if isinstance(value, list):
        return _listed(value, 8)
    return _number(value)


def _mapping(value: object) -> Mapping[str, object]:
    """A mapping as JSON has it, empty where there is none."""
    return value if isinstance(value, dict) else {}


def _dotted(settings: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings by dotted key, as `--set` takes them."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _plain(value)


def _number(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _listed(values: Sequence[object], limit: int) -> str:
    text = ", ".join(str(value) for value in values[:limit])
    return text if len(values) <= limit else f"{text} and {len(values) - limit} more"


def _range(spread: Distribution, form: str = "{:.0f}") -> str:
    if spread.median is None:
        return "-"
    low, middle, high = (form.format(value) for value in (spread.min, spread.median, spread.max))
    return low if low == high else f"{low} to {high} ({middle})"
