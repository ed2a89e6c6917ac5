"""`prunekd inspect`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prunekd.cli._shared import JSON, emit, progress_bar

if TYPE_CHECKING:
    from prunekd.pruning.scores import Scores

KINDS = "a store, a scores file, a subset or a run folder"


@click.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--store", type=click.Path(path_type=Path), help="For a subset: its store, to check and to draw from.")
@click.option("--scores", type=click.Path(path_type=Path), help="For a subset: scores to compare kept and dropped by.")
@click.option("--score", help="The score a contact sheet is sorted by [default: the one the subset was ranked by].")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="For a subset: draw a contact sheet (PNG)."
)
@click.option(
    "--subset",
    "subset_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="For a store: would it pay to compact it to this subset?",
)
@click.option("--keep", type=float, help="With --subset: this smaller fraction of its ranking.")
@click.option("--epochs", type=click.IntRange(min=1), help="With --subset: epochs of all runs to come [default: 90].")
@click.option(
    "--memory",
    type=click.FloatRange(min=0),
    help="With --subset: GiB that hold what was read [default: what is available here].",
)
@click.option("--verify", is_flag=True, help="For a store: read everything and hold it against its checksums.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which samples are drawn.")
@JSON
def command(
    path: Path,
    store: Path | None,
    scores: Path | None,
    score: str | None,
    out: Path | None,
    subset_file: Path | None,
    keep: float | None,
    epochs: int | None,
    memory: float | None,
    verify: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Show what PATH holds: a store, a scores file, a subset or a run folder.

    \b
    Example:
      prunekd inspect store
      prunekd inspect store --subset half.parquet --epochs 90
      prunekd inspect half.parquet --store store --scores scores.parquet --out sheet.png
    """
    kind = detect(path)
    if kind != "subset" and (store or scores or score or out):
        raise ValueError(f"--store, --scores, --score and --out are for subsets, and {path} is a {kind}")
    if kind != "store" and (subset_file or verify):
        raise ValueError(f"--subset and --verify are for stores, and {path} is a {kind}")
    if not subset_file and (keep, epochs, memory) != (None, None, None):
        raise ValueError("--keep, --epochs and --memory say when compacting to a subset pays: give --subset FILE too")
    if kind == "subset":
        facts = _inspect_subset(path, store, scores, score, out, seed)
    else:
        facts = {"store": _inspect_store, "scores": _inspect_scores, "run": _inspect_run}[kind](path)
    if subset_file:
        facts["compaction"] = _compaction(path, subset_file, keep, epochs or 90, memory)
    if verify:
        facts["damaged"] = _damaged(path)
    emit(facts, as_json, "" if as_json else _rendered(facts))
    if facts.get("damaged"):
        raise RuntimeError(f"{path} is damaged: {len(facts['damaged'])} samples; convert the dataset again")


def detect(path: Path) -> str:
    """Which of store, scores, subset and run `path` is; ValueError if it is none."""
    from prunekd.pruning.parquet import describe

    if not path.exists():
        raise ValueError(f"{path} does not exist; inspect takes {KINDS}")
    if path.is_dir():
        if (path / "store.json").exists():
            return "store"
        if (path / "run.json").exists():
            return "run"
        if (path / "sweep.json").exists():
            raise ValueError(f"{path} is a sweep; show it with: prunekd report {path} --out report.html")
        raise ValueError(f"{path} has neither store.json nor run.json; inspect takes {KINDS}")
    if path.name.endswith(".index.parquet"):
        raise ValueError(f"{path} is the index of a store; inspect its folder: prunekd inspect {path.parent}")
    formats = {"prunekd-scores": "scores", "prunekd-subset": "subset"}
    found = describe(path)["format"]
    if found not in formats:
        raise ValueError(f"{path} is a {found} file; inspect takes {KINDS}")
    return formats[found]


def _inspect_store(path: Path) -> dict[str, Any]:
    import numpy as np

    from prunekd.pruning.facts import distribution
    from prunekd.store import open_store

    store = open_store(path)
    splits = {}
    for name, split in store.splits.items():
        sizes = np.bincount(split.labels, minlength=len(store.classes))
        splits[name] = {
            "samples": len(split),
            "payload_bytes": split.payload_bytes,
            "file_bytes": split.path.stat().st_size,
            "jpeg": int((split.modes == 0).sum()),
            "raw": int((split.modes == 1).sum()),
            "width": distribution(split.widths),
            "height": distribution(split.heights),
            "class_sizes": sizes.tolist(),
        }
    return {
        "kind": "store",
        "path": str(path),
        "classes": list(store.classes),
        "fingerprint": store.fingerprint,
        "source": store.source,
        "settings": store.settings,
        "splits": splits,
        "quarantined": list(store.quarantined),
        "compacted": store.compacted,
    }


def _compaction(path: Path, subset_file: Path, keep: float | None, epochs: int, memory: float | None) -> dict[str, Any]:
    """Whether compacting the store to a subset pays."""
    from prunekd.cli.compact import kept_at
    from prunekd.pruning import read_subset
    from prunekd.store import open_store
    from prunekd.store.jobs.compaction_cost import available_memory, gain_facts, storage_of

    store, subset = open_store(path), read_subset(subset_file)
    subset.check(store)
    size = available_memory() if memory is None else round(memory * 2**30)
    ids = subset.ids[: kept_at(subset, keep)]
    return dict(gain_facts(store.split(subset.info["split"]), ids, epochs, size, storage_of(path)))


def _damaged(path: Path) -> list[dict[str, Any]]:
    """Samples whose bytes are not those that were stored."""
    import numpy as np

    from prunekd.common.machine import available_cores
    from prunekd.store import open_store
    from prunekd.store.jobs.verify import check_index, damaged

    store, found = open_store(path), []
    check_index(store)
    for name, split in store.splits.items():
        with progress_bar(len(split), f"verify {name}") as update:
            wrong = damaged(split, available_cores(), lambda done, total, show=update: show(done, ""))  # type: ignore[misc]
        keys = split.keys(np.array([row for row, _ in wrong], dtype=np.int64))
        found += [
            {"split": name, "id": int(split.ids[row]), "key": key, "reason": reason}
            for (row, reason), key in zip(wrong, keys, strict=True)
        ]
    return found


def _inspect_scores(path: Path) -> dict[str, Any]:
    from prunekd.pruning.facts import scores_facts
    from prunekd.pruning.scores import read_scores

    return {"path": str(path), **scores_facts(read_scores(path))}


def _inspect_subset(
    path: Path, store: Path | None, scores: Path | None, score: str | None, out: Path | None, seed: int
) -> dict[str, Any]:
    from prunekd.pruning import read_subset
    from prunekd.pruning.facts import subset_facts
    from prunekd.pruning.parquet import check_same_store
    from prunekd.pruning.scores import read_scores
    from prunekd.store import open_store

    subset = read_subset(path)
    table: Scores | None = read_scores(scores) if scores else None
    if table is not None:
        check_same_store(str(scores), table.provenance, str(path), subset.info)
    facts = {"path": str(path), **subset_facts(subset, table)}
    if store:
        opened = open_store(store)
        subset.check(opened)
        facts["class_names"] = list(opened.classes)
        if out:
            from prunekd.pruning.contact_sheet import draw_contact_sheet

            draw_contact_sheet(opened, subset, out, table, score, seed)
            facts["contact_sheet"] = str(out)
    elif out:
        raise ValueError("a contact sheet is drawn from the images: give the subset's store too (--store STORE)")
    return facts


def _inspect_run(path: Path) -> dict[str, Any]:
    import json

    from prunekd.common.files import read_json

    result = path / "result.json"
    metrics = path / "metrics.jsonl"
    epochs = []
    for line in metrics.read_text().splitlines() if metrics.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break  # the run is being written, or was killed in this line
        if record.get("kind") == "epoch":
            epochs.append(record)
    return {
        "kind": "run",
        "path": str(path),
        "finished": result.exists(),
        "run": read_json(path / "run.json"),
        "result": read_json(result) if result.exists() else None,
        "epochs": epochs,
        "checkpoints": sorted((p.name for p in path.glob("checkpoints/step-*")), key=lambda name: (len(name), name)),
    }


def _rendered(facts: dict[str, Any]) -> str:
    from prunekd.cli._tables import render

    return render(facts)
