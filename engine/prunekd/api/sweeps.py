"""Sweeps: train a grid of runs, estimate it, report on it."""

from collections.abc import Sequence
from pathlib import Path

from prunekd.api.stores import AnyStore, open_store
from prunekd.api.teachers import Device
from prunekd.common.distributed import World, open_world
from prunekd.common.ledger import Ledger
from prunekd.common.lock import locked
from prunekd.reporting.aggregate import summarize_sweep
from prunekd.reporting.alpha_table import write_alpha
from prunekd.reporting.results import Sweep, read_sweep
from prunekd.reporting.write import Report, write_report
from prunekd.sweep.forecast import Forecast
from prunekd.sweep.prepare import Passes, estimate, prepare
from prunekd.sweep.session import Watch, train_sweep
from prunekd.sweep.settings import Study, SweepSettings, as_settings

__all__ = ["SweepSettings", "forecast", "report", "run_sweep"]


def run_sweep(
    study: Study,
    store: AnyStore,
    *,
    out: str | Path,
    wandb: str | None = None,
    device: Device = "auto",
    progress: Watch | None = None,
    passes: Passes | None = None,
    ledger: Ledger | None = None,
) -> Sweep:
    """Train a grid of keep ratios, arms, policies and seeds, timed, and return what it found.

    The runs of a seed take turns epoch by epoch, so that a machine's drift affects all alike. Scores and soft labels
    are made where they are needed and not given. Finished runs in `out` are kept, unfinished ones go on.

    Args:
        study: SweepSettings, a mapping of its fields, or a YAML file of them; relative paths in it are relative to the
            working directory.
        store: a Store or its path.
        out: folder of the sweep, which may hold the same sweep, or a part of it.
        wandb: a project of Weights & Biases to log to, besides TensorBoard.
        device: `auto`, `cpu`, `cuda` or a torch.device.
        progress: called with a SweepProgress and the RunState that changed, before the first run with None.
        passes: called while the teacher scores or labels the store, with `score` or `labels`, done and total.
        ledger: where to book the seconds; None for a new one.

    Returns:
        The sweep with all its finished runs; `prunekd.report(sweep, "report.html")` makes its report.

    Raises:
        ValueError: settings that cannot be trained, another sweep in `out`, or several processes.
        RuntimeError: stopped by a signal (call again to go on), or another process at work in `out`.
        KeyboardInterrupt: a first Ctrl-C stopped the sweep (call again to go on), or a second one at once.

    Example:
        study = {"recipe": "demo", "settings": {"epochs": 1, "batch_size": 16}, "arms": ["plain"], "keeps": [1]}
        sweep = prunekd.run_sweep(study, "store", out="plain-sweep")
        print([(run.name, run.top1) for run in sweep.runs])
    """
    settings, store, out, ledger = as_settings(study), open_store(store), Path(out), ledger or Ledger()
    with open_world(device) as world:
        _refuse_several(world)
        with locked(out, "sweep"):
            spec = prepare(
                settings, store, out, world, ledger=ledger, passes=passes or (lambda name, done, total: None)
            )
            train_sweep(spec, world, ledger=ledger, watch=progress or (lambda progress, run: None), wandb=wandb)
    sweep = read_sweep(out)
    if settings.sweep == "alpha":
        write_alpha(sweep)
    return sweep


def forecast(study: Study, store: AnyStore, *, out: str | Path, device: Device = "auto") -> Forecast:
    """Estimate what `run_sweep` with the same arguments would take, from a few batches; writes nothing.

    Returns:
        Estimates in seconds of the runs that are left to do, and of the passes made once.

    Raises:
        ValueError: settings that cannot be trained, or several processes.

    Example:
        from prunekd.api.sweeps import forecast
        study = {"recipe": "demo", "arms": ["plain"], "keeps": [1]}
        print(forecast(study, "store", out="plain-sweep").seconds)
    """
    settings, store = as_settings(study), open_store(store)
    with open_world(device) as world:
        _refuse_several(world)
        return estimate(settings, store, Path(out), world)


def report(sweeps: Sweep | str | Path | Sequence[Sweep | str | Path], out: str | Path | None = None) -> Report:
    """Make the report of one or several sweeps, finished or not.

    Args:
        sweeps: a Sweep or its folder, or several, which then stand side by side.
        out: file to write; its suffix is the format: `.html` (with .png, .md, .csv and .json of the same name beside
            it), `.md`, `.csv` or `.json`. None writes nothing.

    Returns:
        The report: `.headlines`, `.text("md")`, and `.files`, what was written.

    Raises:
        ValueError: a folder without a sweep, a damaged file, or another suffix.

    Example:
        found = prunekd.report("sweep", "report.html")
        print(found.headlines, found.files)
    """
    several = [sweeps] if isinstance(sweeps, (Sweep, str, Path)) else sweeps
    opened = [sweep if isinstance(sweep, Sweep) else read_sweep(Path(sweep)) for sweep in several]
    summaries = tuple(summarize_sweep(sweep) for sweep in opened)
    return Report(summaries=summaries, files=() if out is None else tuple(write_report(summaries, Path(out))))


def _refuse_several(world: World) -> None:
    if world.size > 1:
        raise ValueError("a sweep runs in one process; train its arms one by one under torchrun instead")
