"""Show what stores, scores, subsets and runs hold, and lay subsets side by side."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from prunekd.api.stores import AnyStore, open_store
from prunekd.pruning.compare import Comparison, compare_subsets
from prunekd.pruning.compare_figure import draw_comparison
from prunekd.pruning.contact_sheet import draw_contact_sheet, draw_contact_sheets
from prunekd.pruning.facts import ScoresFacts, SubsetFacts, scores_facts, subset_facts
from prunekd.pruning.parquet import check_same_store, describe
from prunekd.pruning.prefix import prefix
from prunekd.pruning.scores.table import Scores, as_scores
from prunekd.pruning.subset import Subset, as_subset, read_subset
from prunekd.reporting.run_folder import RunFacts, read_run_folder
from prunekd.store.format.store import STORE_FILE, missing, partial_path
from prunekd.store.jobs.compaction_cost import CompactionCost, compaction_cost
from prunekd.store.jobs.facts import StoreFacts, store_facts
from prunekd.store.jobs.verify import verify as verify_store

KINDS = "a store, a scores file, a subset or a run folder"
EPOCHS = 90  # epochs of all runs to come, where nobody says

Kind = Literal["store", "scores", "subset", "run"]


def kind_of(path: str | Path) -> Kind:
    """Tell what a path is: store, scores, subset or run.

    Raises:
        ValueError: it is none of them; the message says what to do with what it is.
    """
    path = Path(path)
    if not path.exists():
        if partial_path(path).exists():  # a path that does not exist has a name
            raise ValueError(missing(path))
        raise ValueError(f"{path} does not exist; inspect takes {KINDS}")
    if path.is_dir():
        if (path / STORE_FILE).exists():
            return "store"
        if (path / "run.json").exists():
            return "run"
        if (path / "sweep.json").exists():
            raise ValueError(f"{path} is a sweep; show it with: prunekd report {path} --out report.html")
        raise ValueError(f"{path} has neither store.json nor run.json; inspect takes {KINDS}")
    if path.name.endswith(".index.parquet"):
        raise ValueError(f"{path} is the index of a store; inspect its folder: prunekd inspect {path.parent}")
    found = describe(path)["format"]
    if found == "prunekd-scores":
        return "scores"
    if found == "prunekd-subset":
        return "subset"
    raise ValueError(f"{path} is a {found} file; inspect takes {KINDS}")


def inspect_store(
    store: AnyStore,
    *,
    subset: Subset | str | Path | None = None,
    keep: float | None = None,
    epochs: int = EPOCHS,
    memory: int | None = None,
    verify: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> StoreFacts:
    """Return the figures of a store: classes, splits, sizes, quarantined inputs.

    Args:
        subset: also answer whether compacting the store to this subset pays.
        keep: of the subset, only this smaller fraction of its ranking.
        epochs: of all runs to come, for that answer.
        memory: bytes that hold what was read; None for what is available here.
        verify: also read everything and compare it with its checksums.
        progress: called while verifying, with (split, samples done, samples in all).

    Raises:
        ValueError: not a store, a subset of another store, or an index that is not the store's.
    """
    opened = open_store(store)
    cost: CompactionCost | None = None
    if subset is not None:
        chosen = prefix(opened, as_subset(opened, subset, None), keep)
        cost = compaction_cost(opened.split(chosen.info["split"]), chosen.ids, epochs, memory)
    damaged = verify_store(opened, progress=progress or (lambda split, done, total: None)) if verify else None
    return store_facts(opened, cost, damaged)


def inspect_scores(scores: Scores | str | Path) -> ScoresFacts:
    """Return the figures of scores: who made them, and the distribution of every column.

    Raises:
        ValueError: not a scores file.
    """
    return scores_facts(as_scores(scores))


def inspect_subset(
    subset: Subset | str | Path,
    *,
    store: AnyStore | None = None,
    scores: Scores | str | Path | None = None,
    score: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
) -> SubsetFacts:
    """Return the figures of a subset: its selection, and what it keeps of each class.

    Args:
        store: its store, to check that it fits and to name the classes.
        scores: compare kept and dropped by them.
        score: the one that the contact sheet is sorted by; None for the one the subset was ranked by.
        out: draw a contact sheet of kept and dropped samples into this PNG; needs `store`.
        seed: which samples are drawn.

    Raises:
        ValueError: store or scores belong to another store than the subset, or `out` without `store`.
    """
    table = None if scores is None else as_scores(scores)
    chosen = subset if isinstance(subset, Subset) else read_subset(Path(subset))
    if table is not None:
        check_same_store(_shown(scores, "the scores"), table.provenance, _shown(subset, "the subset"), chosen.info)
    if store is None:
        if out is not None:
            raise ValueError("a contact sheet is drawn from the images: give the subset's store too (--store STORE)")
        return subset_facts(chosen, table)
    opened = open_store(store)
    chosen.check(opened)
    sheet = None
    if out is not None:
        sheet = Path(out)
        draw_contact_sheet(opened, chosen, sheet, table, score, seed)
    return subset_facts(chosen, table, opened.classes, sheet)


def inspect_run(run: str | Path) -> RunFacts:
    """Return what the folder of a run holds: recipe, epochs, result, checkpoints.

    Raises:
        ValueError: not the folder of a run.
    """
    return read_run_folder(Path(run))


def compare(
    subsets: Sequence[str | Path] | Mapping[str, Subset | str | Path],
    *,
    scores: Scores | str | Path | None = None,
    score: str | None = None,
    out: str | Path | None = None,
    sheets: str | Path | None = None,
    store: AnyStore | None = None,
) -> Comparison:
    """Lay subsets side by side: what they share, its order, classes, difficulties.

    Args:
        subsets: two or more files, shown under their names; or subsets and files by the name they are to have.
        scores: how hard are the samples that each keeps?
        score: the column that says so; None for the first subset's own.
        out: draw a picture into this PNG.
        sheets: draw a contact sheet of each subset into this folder; needs `store`.
        store: of the subsets.

    Raises:
        ValueError: fewer than two subsets, ones of different stores, or `sheets` without `store`.
    """
    if sheets is not None and store is None:
        raise ValueError("--sheets draws samples and needs --store, the store they are in")
    named = subsets if isinstance(subsets, Mapping) else _by_name(subsets)
    opened = {name: item if isinstance(item, Subset) else read_subset(Path(item)) for name, item in named.items()}
    table = None if scores is None else as_scores(scores)
    comparison = compare_subsets(opened, table, score)
    if out is not None:
        draw_comparison(comparison, Path(out))
        comparison = replace(comparison, picture=Path(out))
    if sheets is not None and store is not None:
        drawn = draw_contact_sheets(open_store(store), opened, Path(sheets), table, score)
        comparison = replace(comparison, contact_sheets=drawn)
    return comparison


def _by_name(paths: Sequence[str | Path]) -> dict[str, Path]:
    """Files by their names without `.parquet`; by whole paths where those are not all different."""
    found = [Path(path) for path in paths]
    stems = Counter(path.stem for path in found)
    return {path.stem if stems[path.stem] == 1 else str(path): path for path in found}


def _shown(value: object, otherwise: str) -> str:
    """How an error message calls what was given: by its path, if it is one."""
    return str(value) if isinstance(value, str | Path) else otherwise
