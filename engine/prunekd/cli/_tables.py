"""The tables of `prunekd inspect` and `prunekd compare`."""

import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

LONGEST = 20  # rows of a list shown in full


def render(facts: dict[str, Any]) -> str:
    """The facts of `prunekd inspect` or `compare` as text, in colour where stdout is a terminal."""
    tables = {"store": _store, "scores": _scores, "subset": _subset, "run": _run, "comparison": _comparison}[
        facts["kind"]
    ](facts)
    console = Console()
    drawn = Console(
        file=io.StringIO(),
        width=console.width if console.is_terminal else 120,
        force_terminal=console.is_terminal,
        color_system="auto" if console.is_terminal else None,
    )
    for table in tables:
        drawn.print(table)
    assert isinstance(drawn.file, io.StringIO)
    return "\n".join(line.rstrip() for line in drawn.file.getvalue().splitlines()).strip("\n")


def _store(facts: dict[str, Any]) -> Iterable[Table]:
    splits = facts["splits"]
    yield _pairs(
        f"Store {facts['path']}",
        {
            "classes": f"{len(facts['classes'])}: {_listed(facts['classes'], 8)}",
            "fingerprint": facts["fingerprint"],
            "source": _plain(facts["source"]),
            "settings": _plain(facts["settings"]),
            "quarantined": len(facts["quarantined"]),
            **_compacted(facts["compacted"]),
            **({"verified": f"{len(facts['damaged'])} damaged samples"} if "damaged" in facts else {}),
        },
    )
    yield _grid(
        "Splits",
        ["", "samples", "per class", "payload", "file", "jpeg", "raw", "width (median)", "height (median)"],
        [
            [
                name,
                f"{split['samples']:,}",
                f"{min(split['class_sizes']):,} to {max(split['class_sizes']):,}",
                _bytes(split["payload_bytes"]),
                _bytes(split["file_bytes"]),
                f"{split['jpeg']:,}",
                f"{split['raw']:,}",
                _range(split["width"]),
                _range(split["height"]),
            ]
            for name, split in splits.items()
        ],
    )
    for title, bad in (("Quarantined", facts["quarantined"]), ("Damaged", facts.get("damaged"))):
        if bad:
            rows = [[one.get("split", ""), one["key"], one["reason"]] for one in bad[:LONGEST]]
            left = len(bad) - len(rows)
            yield _grid(title, ["split", "key", "reason"], rows + ([["", f"and {left} more", ""]] if left else []))

    if "compaction" in facts:
        yield from _compaction(facts["compaction"])


def _compacted(info: dict[str, Any] | None) -> dict[str, str]:
    if info is None:
        return {}
    return {"compacted from": f"{info['parent']['path']} ({info['parent']['samples']:,} samples in {info['split']})"}


def _compaction(facts: dict[str, Any]) -> Iterable[Table]:
    yield _pairs(
        f"Compacting to {facts['kept']:,} samples, {_bytes(facts['kept_bytes'])}, for {facts['epochs']} epochs",
        {
            "storage": f"{facts['storage']} by the system's word ({facts['file_system']})",
            "rests on": "offsets and sizes in the index (nothing is measured); samples read in random order; what was "
            f"read staying in memory as far as {_bytes(facts['memory'])} hold it",
        },
    )
    yield _grid(
        "Bytes read from this storage in all epochs",
        ["read by", "as it is", "compacted", "to copy", "net saving", "pays"],
        [
            [
                name,
                _bytes(one["bytes_before"]),
                _bytes(one["bytes_after"]),
                _bytes(one["bytes_copied"]),
                _signed(one["bytes_saved"]),
                _pays(one),
            ]
            for name, one in facts["readers"].items()
        ],
    )


def _signed(count: int) -> str:
    return f"-{_bytes(-count)}" if count < 0 else _bytes(count)


def _pays(gain: dict[str, Any]) -> str:
    start = gain["pays_from_epochs"]
    if start is None:
        return "never"
    return f"{'yes' if gain['pays'] else 'no'}, from {'the first epoch' if start == 1 else f'{start} epochs'}"


def _scores(facts: dict[str, Any]) -> Iterable[Table]:
    skipped = ("kind", "path", "columns", "class_std")
    yield _pairs(f"Scores {facts['path']}", {k: _plain(v) for k, v in facts.items() if k not in skipped})
    names = ("min", "q25", "median", "q75", "max", "mean", "not_finite")
    yield _grid(
        "Columns",
        ["definition", "hard end", *names],
        [
            [entry["definition"], entry["hard_end"] or "-", *(_number(entry[name]) for name in names)]
            for entry in (
                *facts["columns"].values(),
                {"definition": "class_std (per class)", "hard_end": None, **facts["class_std"]},
            )
        ],
    )


def _subset(facts: dict[str, Any]) -> Iterable[Table]:
    ranked = facts["score_definition"] or "nothing"
    yield _pairs(
        f"Subset {facts['path']}",
        {
            "kept": f"{facts['kept']:,} of {facts['total']:,} ({facts['share']:.2%}; asked for {facts['keep']:.2%})",
            "policy": f"{facts['policy']}, ranked by {ranked}, balance {facts['balance']}, seed {facts['seed']}",
            "parameters": _plain(facts["parameters"]) or "none",
            "scored by": _plain(facts["scored_by"]) if facts["scored_by"] else "-",
            "weights": "yes" if facts["weighted"] else "no",
            "split": facts["split"],
            "store": f"{facts['store']['path']} ({facts['store']['classes']} classes)",
            "fingerprint": facts["fingerprint"],
            "share kept per class": _range(facts["class_share"], "{:.1%}"),
            "contact sheet": facts.get("contact_sheet", "-"),
        },
    )
    yield _classes(facts)
    if "mean_scores" in facts:
        rows = [[name, _number(mean["kept"]), _number(mean["dropped"])] for name, mean in facts["mean_scores"].items()]
        yield _grid("Mean scores", ["", "kept", "dropped"], rows)


def _classes(facts: dict[str, Any]) -> Table:
    counts, totals = facts["class_counts"], facts["class_totals"]
    names = facts.get("class_names") or [str(k) for k in range(len(counts))]
    by_share = sorted((k for k in range(len(counts)) if totals[k]), key=lambda k: (counts[k] / totals[k], k))
    rows = [[names[k], f"{counts[k]:,}", f"{totals[k]:,}", f"{counts[k] / totals[k]:.1%}"] for k in by_share]
    title = "Classes"
    if len(rows) > LONGEST:
        half = LONGEST // 2
        rows = [*rows[:half], ["...", "", "", ""], *rows[-half:]]
        title = f"Classes kept the least and the most, of {len(by_share)}"
    return _grid(title, ["class", "kept", "of", "share"], rows)


def _run(facts: dict[str, Any]) -> Iterable[Table]:
    run, result = facts["run"], facts["result"]
    apart = ("format", "version", "machine", "recipe")
    told = {key: _plain(value) for key, value in run.items() if key not in apart}
    yield _pairs(f"Run {facts['path']}", {**told, "checkpoints": ", ".join(facts["checkpoints"]) or "none"})
    yield _pairs("Recipe", dict(_dotted(run.get("recipe", {}))))
    if result is None:
        done = len(facts["epochs"])
        yield _pairs("Not finished", {"epochs done": done, "go on with": "prunekd train ... --resume auto"})
    else:
        shown = {key: _plain(value) for key, value in result.items() if key not in ("ledger", "epoch_seconds")}
        yield _pairs("Result", shown)
        ledger = result.get("ledger", {})
        seconds = {k: f"{v:.2f}" for k, v in ledger.get("seconds", {}).items()}
        yield _pairs("Ledger (seconds)", {**seconds, "wall": f"{ledger.get('wall_seconds', 0):.2f}"})
    if facts["epochs"]:
        last = facts["epochs"][-LONGEST:]
        keys = [key for key in last[-1] if key not in ("kind", "step")]
        title = (
            f"Epochs (the last {len(last)} of {len(facts['epochs'])})" if len(last) < len(facts["epochs"]) else "Epochs"
        )
        yield _grid(title, keys, [[_number(record.get(key)) for key in keys] for record in last])


def _comparison(facts: dict[str, Any]) -> Iterable[Table]:
    names = facts["names"]
    sizes = [
        [
            name,
            facts["policies"][k],
            f"{facts['sizes'][k]:,}",
            f"{facts['sizes'][k] / facts['total']:.1%}",
            f"{min(facts['class_counts'][k])} to {max(facts['class_counts'][k])}",
            f"{facts['class_distance'][k]:.3f}",
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
        rows = [[name, *("-" if v is None else f"{v:.3f}" for v in facts[key][k])] for k, name in enumerate(names)]
        yield _grid(title, ["", *names], rows)
    if "difficulty" in facts:
        rows = [[name, *(f"{v:.1%}" for v in facts["difficulty"]["share"][k])] for k, name in enumerate(names)]
        bins = len(rows[0]) - 1
        title = f"Share of each subset by tenths of {facts['difficulty']['score']}, easy to hard"
        yield _grid(title, ["", *(str(k + 1) for k in range(bins))], rows)
    drawn: dict[str, Any] = {key: _plain(facts[key]) for key in ("picture", "contact_sheets") if key in facts}
    if drawn:
        yield _pairs("Pictures", drawn)


def _pairs(title: str, values: dict[str, Any]) -> Table:
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


def _plain(value: Any) -> str:
    """A value in one line: mappings as `name value` pairs, nested ones as JSON."""
    if isinstance(value, dict):
        return ", ".join(
            f"{k} {json.dumps(v) if isinstance(v, (dict, list)) else _number(v)}" for k, v in value.items()
        )
    if isinstance(value, list):
        return _listed(value, 8)
    return _number(value)


def _dotted(settings: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings by dotted key, as `--set` takes them."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _plain(value)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _listed(values: Sequence[Any], limit: int) -> str:
    text = ", ".join(str(value) for value in values[:limit])
    return text if len(values) <= limit else f"{text} and {len(values) - limit} more"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _range(spread: dict[str, Any], form: str = "{:.0f}") -> str:
    if spread["median"] is None:
        return "-"
    low, middle, high = (form.format(spread[name]) for name in ("min", "median", "max"))
    return low if low == high else f"{low} to {high} ({middle})"
