"""Read a sweep's folder: sweep.json and runs/NAME/result.json.

Strict about what the figures rest on (a wrong type, a NaN or a doubled run is an error that names the file),
tolerant of fields it does not know and of numbers an older or newer version did not write (they become None).
A run that has no result yet is listed as missing, never left out in silence.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from prunekd.common.files import read_json, require_keys
from prunekd.sweep.run import SWEEP, SWEEP_MORE
from prunekd.training.outcome import RESULT

Number = int | float
_NUMBER = (int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished run. Seconds and bytes are of the whole run, accuracies in [0, 1]; None: not measured.

    keep is the ratio asked for, kept_share what the selection really kept. train_seconds is waiting for data plus
    steps; evaluation and checkpoints are in the ledger only. phases and counters are the ledger's. extrapolated says
    from how much the seconds and bytes were extrapolated, None if they were measured to the end. replaced and skipped
    are samples that could not be decoded.
    """

    name: str
    arm: str
    policy: str
    keep: float
    seed: int
    epochs: int
    samples_kept: int
    samples_total: int
    train_seconds: float
    epoch_seconds: tuple[float, ...]
    phases: Mapping[str, float]
    counters: Mapping[str, Number] = field(default_factory=dict)
    top1: float | None = None
    best_top1: float | None = None
    val_samples: Number | None = None
    eval_seconds: float | None = None
    images_per_second: float | None = None
    data_wait_share: float | None = None
    samples_seen: Number | None = None
    bytes_read: Number | None = None
    payload_bytes: Number | None = None
    replaced: Number | None = None
    skipped: Number | None = None
    alpha: float | None = None
    temperature: float | None = None
    extrapolated: Mapping[str, Number] | None = None

    @property
    def kept_share(self) -> float:
        """Samples trained on / samples in the store, in (0, 1]."""
        return self.samples_kept / self.samples_total

    @property
    def read_amplification(self) -> float | None:
        """Bytes read / bytes of the samples asked for; None where the reader counts neither."""
        return self.bytes_read / self.payload_bytes if self.payload_bytes and self.bytes_read is not None else None

    @property
    def wall_seconds(self) -> float:
        """All seconds the run's ledger booked."""
        return sum(self.phases.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that worked on a sweep: its seconds by phase, and when it worked; None: not written by 0.1.0."""

    name: str
    seconds: Mapping[str, Number]
    began: datetime | None
    ended: datetime | None

    def overlaps(self, other: "Process") -> bool:
        """True if both were at work at some time, as far as is known."""
        if self.began is None or self.ended is None or other.began is None or other.ended is None:
            return False
        return self.began < other.ended and other.began < self.ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep as far as it has come.

    runs are the finished ones in the order of sweep.json, missing the names without a result, unlisted the folders
    with a result that sweep.json does not name (they are not in any figure). costs are seconds spent once, by name.
    processes are those that worked on the sweep. facts is all of sweep.json, for provenance.
    """

    path: Path
    runs: tuple[Run, ...]
    missing: tuple[str, ...]
    unlisted: tuple[str, ...]
    costs: Mapping[str, float]
    facts: Mapping[str, Any]
    processes: tuple[Process, ...] = ()

    def __repr__(self) -> str:
        keeps = ", ".join(f"{keep:g}" for keep in self.facts["keeps"])
        return (
            f"Sweep({str(self.path)!r}, {len(self.runs)} of {self.planned} runs: {', '.join(self.facts['arms'])} "
            f"at keep {keeps})"
        )

    @property
    def planned(self) -> int:
        """Runs the sweep was to have."""
        return len(self.runs) + len(self.missing)

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of the runs that the latest command asked for; a sweep may have grown over several."""
        commands = self.facts.get("commands") or [{}]
        return tuple(commands[-1].get("runs") or self.facts["runs"])

    def result(self, name: str) -> dict[str, Any]:
        """Contents of the result.json of the run `name`."""
        result: dict[str, Any] = read_json(self.path / "runs" / name / "result.json", RESULT)
        return result

    @property
    def extrapolated(self) -> bool:
        """True if seconds and bytes of the finished runs were not measured to their ends."""
        return any(run.extrapolated for run in self.runs)

    @property
    def overlaps(self) -> tuple[tuple[Process, Process], ...]:
        """Pairs of processes that worked at the same time, and so may have slowed each other."""
        return tuple((a, b) for a, b in combinations(self.processes, 2) if a.overlaps(b))

    @property
    def reshaping(self) -> bool:
        """True if the teacher's logits were reshaped, which needs the score pass whatever the policy."""
        return bool(self.facts.get("reshaping"))


def read_sweep(path: Path) -> Sweep:
    """Read the sweep in the folder `path`.

    Raises:
        ValueError: there is no sweep.json, or a file is not what a sweep writes; the message names the file.
    """
    file = path / "sweep.json"
    if not file.is_file():
        raise ValueError(f"{path} holds no sweep (no sweep.json); give a folder that `prunekd bench --out` made")
    facts = _Fields(file, _facts(file))
    names = facts.names("runs")
    if not names:
        raise ValueError(f"{file}: runs is empty; a sweep has at least one run")
    found = {name: path / "runs" / name / "result.json" for name in names}
    finished = [name for name in names if found[name].is_file()]
    on_disk = sorted(p.parent.name for p in (path / "runs").glob("*/result.json"))
    runs = tuple(read_run(found[name], name) for name in finished)
    _refuse_doubles(runs, path)
    return Sweep(
        path=path,
        runs=runs,
        missing=tuple(name for name in names if name not in finished),
        unlisted=tuple(name for name in on_disk if name not in found),
        costs=_costs(facts),
        processes=_processes(path / "ledger.json"),
        facts=facts.values,
    )


def _facts(file: Path) -> dict[str, Any]:
    """Contents of sweep.json, whose parts are of the kinds that reports expect."""
    values: dict[str, Any] = read_json(file, {"runs": list, "arms": list, "keeps": list})
    optional = {**SWEEP, **SWEEP_MORE, "teacher": (dict, type(None))}
    require_keys(values, {key: kind for key, kind in optional.items() if key in values}, str(file))
    for at, keep in enumerate(values["keeps"]):
        require_keys({"keep": keep}, {"keep": float}, f"{file}: keeps[{at}]")
    for at, arm in enumerate(values["arms"]):
        require_keys({"arm": arm}, {"arm": str}, f"{file}: arms[{at}]")
    for at, command in enumerate(values.get("commands", [])):
        require_keys(command, {}, f"{file}: commands[{at}]")
    for name, arm in values.get("arm_settings", {}).items():
        require_keys(arm, {"name": str, "title": str, "summary": str}, f"{file}: arm_settings.{name}")
    return values


def overlap_note(sweep: Sweep) -> str | None:
    """What every output says of a sweep whose processes ran at the same time; None for others."""
    if not sweep.overlaps:
        return None
    pairs = "; ".join(
        f"{a.name} ({a.began:%Y-%m-%d %H:%M:%S} to {a.ended:%H:%M:%S}) and {b.name} "
        f"({b.began:%Y-%m-%d %H:%M:%S} to {b.ended:%H:%M:%S} UTC)"
        for a, b in sweep.overlaps
    )
    return f"Processes of this sweep ran at the same time and may have slowed each other: {pairs}."


def timing_note(sweep: Sweep) -> str | None:
    """What every output says of a sweep that was timed and not trained; None for one that was trained."""
    timed = [run.extrapolated for run in sweep.runs if run.extrapolated]
    if not timed:
        return None
    batches, epochs = max(int(t["batches"]) for t in timed), max(int(t["epochs"]) for t in timed)
    cache = "cold" if sweep.facts.get("cold") else "warm"
    return (
        f"All times are extrapolated from {batches} batches in each of {epochs} short epochs of a run ({cache} page "
        "cache): no run was trained to its end, nothing was evaluated and no accuracy was measured."
    )


def read_run(file: Path, name: str) -> Run:
    """Read one result.json of the run `name`.

    Raises:
        ValueError: the file is not JSON, lacks a field, or holds an impossible value; the message names file and field.
    """
    fields = _Fields(file, read_json(file))
    if fields.text("name") != name:
        raise ValueError(f"{file}: name is {fields.text('name')!r}, but its folder is {name!r}")
    ledger = _Fields(file, fields.get("ledger"), "ledger.")
    run = Run(
        name=name,
        arm=fields.text("arm"),
        policy=fields.text("policy"),
        keep=fields.number("keep", above=0, most=1),
        seed=int(fields.number("seed", least=0)),
        epochs=int(fields.number("epochs", least=1)),
        samples_kept=int(fields.number("samples_kept", least=1)),
        samples_total=int(fields.number("samples_total", least=1)),
        train_seconds=float(fields.number("train_seconds", above=0)),
        epoch_seconds=fields.numbers("epoch_seconds"),
        phases=ledger.table("seconds"),
        counters=ledger.table("counters") if "counters" in ledger.values else {},
        top1=fields.optional("top1", most=1),
        best_top1=fields.optional("best_top1", most=1),
        val_samples=fields.optional("val_samples"),
        eval_seconds=fields.optional("eval_seconds"),
        images_per_second=fields.optional("images_per_second"),
        data_wait_share=fields.optional("data_wait_share", most=1),
        samples_seen=fields.optional("samples_seen"),
        bytes_read=fields.optional("bytes_read"),
        payload_bytes=fields.optional("payload_bytes"),
        replaced=fields.optional("replaced"),
        skipped=fields.optional("skipped"),
        alpha=fields.optional("alpha", most=1),
        temperature=fields.optional("temperature"),
        extrapolated=fields.table("extrapolated") if fields.values.get("extrapolated") else None,
    )
    if run.samples_kept > run.samples_total:
        raise ValueError(f"{file}: samples_kept {run.samples_kept} exceeds samples_total {run.samples_total}")
    return run


def _refuse_doubles(runs: tuple[Run, ...], path: Path) -> None:
    seen: dict[tuple[str, str, float, int], str] = {}
    for run in runs:
        key = (run.arm, run.policy, run.keep, run.seed)
        if key in seen:
            raise ValueError(
                f"{path}: runs {seen[key]!r} and {run.name!r} have the same arm, policy, keep and seed; "
                "averaged together they would pass for two seeds"
            )
        seen[key] = run.name


def _costs(facts: "_Fields") -> dict[str, float]:
    if "costs" not in facts.values:
        return {}
    costs = _Fields(facts.file, facts.get("costs"), "costs.")
    return {
        name: float(_Fields(facts.file, costs.get(name), f"costs.{name}.").number("seconds", least=0))
        for name in costs.values
    }


def _processes(file: Path) -> tuple[Process, ...]:
    if not file.is_file():
        return ()
    processes = []
    for item in read_json(file, {"processes": list})["processes"]:
        fields = _Fields(file, item, "processes.")
        times = [_time(fields, name) if name in fields.values else None for name in ("began", "ended")]
        name = f"process {item.get('pid')} on {item.get('host')}"
        processes.append(Process(name=name, seconds=fields.table("seconds"), began=times[0], ended=times[1]))
    return tuple(processes)


def _time(fields: "_Fields", name: str) -> datetime:
    text = fields.text(name)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = datetime.min
    if found.tzinfo is None:
        raise ValueError(f"{fields.file}: processes.{name} is {text!r}; it must be a time of day with its zone")
    return found


class _Fields:
    """Typed look-ups in a JSON object; every error names the file and the field."""

    def __init__(self, file: Path, values: Any, prefix: str = "") -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{file}: {prefix.rstrip('.') or 'the file'} must be a JSON object, not {values!r:.60}")
        self.file = file
        self.values: dict[str, Any] = values
        self._prefix = prefix

    def get(self, name: str) -> Any:
        if name not in self.values:
            raise ValueError(f"{self.file}: {self._prefix}{name} is missing")
        return self.values[name]

    def text(self, name: str) -> str:
        value = self.get(name)
        return value if isinstance(value, str) and value else self._refuse(name, value, "a non-empty string")

    def names(self, name: str) -> list[str]:
        """Folder names: distinct, and none that leads out of the sweep."""
        value = self.get(name)
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            return self._refuse(name, value, "a list of names")
        for item in value:
            if "/" in item or "\\" in item or item in (".", ".."):
                self._refuse(name, item, "a list of plain folder names")
        if len(set(value)) != len(value):
            self._refuse(name, value, "a list of distinct names")
        return value

    def number(
        self, name: str, *, least: float | None = None, above: float | None = None, most: float | None = None
    ) -> Number:
        return self._number(name, self.get(name), least, above, most)

    def optional(self, name: str, *, most: float | None = None) -> Number | None:
        value = self.values.get(name)
        return None if value is None else self._number(name, value, 0, None, most)

    def numbers(self, name: str) -> tuple[float, ...]:
        value = self.get(name)
        if not isinstance(value, list) or not value:
            return self._refuse(name, value, "a list of at least one number")
        return tuple(float(self._number(name, item, 0, None, None)) for item in value)

    def table(self, name: str) -> dict[str, Number]:
        inner = _Fields(self.file, self.get(name), f"{self._prefix}{name}.")
        return {key: inner.number(key, least=0) for key in inner.values}

    def _number(self, name: str, value: Any, least: float | None, above: float | None, most: float | None) -> Number:
        if isinstance(value, bool) or not isinstance(value, _NUMBER) or not math.isfinite(value):
            return self._refuse(name, value, "a finite number")
        if least is not None and value < least:
            return self._refuse(name, value, f"{least:g} or more")
        if above is not None and value <= above:
            return self._refuse(name, value, f"more than {above:g}")
        if most is not None and value > most:
            return self._refuse(name, value, f"at most {most:g}")
        return value

    def _refuse(self, name: str, value: Any, allowed: str) -> Any:
        raise ValueError(f"{self.file}: {self._prefix}{name} is {value!r:.80}; it must be {allowed}")
