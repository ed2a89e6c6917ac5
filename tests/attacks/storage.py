"""Storage that fails: full, read-only, dead, too small for a file, or moved away while it is read.

Every verb must say so in one line, and finish when the storage is back and the command is given again.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from attacks.children import Ended, Fault, run
from attacks.kills import Bench, bench_of, sampled, sizes
from attacks.results import Tally


def attack(material: Path, work: Path, verbs: list[str], most: int | None, rng: random.Random) -> Iterator[Tally]:
    """Let the storage fail at up to `most` operations of each of `verbs`."""
    for name in verbs:
        bench = bench_of(name, material, work)
        tally = Tally("storage fails", name, "")
        for act, label in (("full", "disk full"), ("dead", "target fails"), ("readonly", "target read-only")):
            for number in [1] if act == "readonly" else sampled(len(bench.operations), most, rng):
                bench.clear()
                ended = run(bench.first, bench.folder, bench.fault(number, act))
                _judge(bench, ended, tally, f"{label} at operation {number}, {bench.operations[number - 1]}")
        for size in sizes(bench, most, rng):
            bench.clear()
            _judge(bench, run(bench.first, bench.folder, limit=size), tally, f"no file may pass {size} bytes")
        yield tally
        if name == "convert":
            yield _source_moved(bench, material / "photos", most, rng)


def _judge(bench: Bench, ended: Ended, tally: Tally, what: str) -> None:
    if ended.code == 0:
        difference = bench.difference()
        tally.add("wrong" if difference else "harmless", f"{what}: exit code 0, but {difference}")
    elif not ended.told:
        tally.add("wrong", f"{what}: {ended.how}")
    else:
        bench.recover(ended, tally, what, refused=True)


def _source_moved(bench: Bench, source: Path, most: int | None, rng: random.Random) -> Tally:
    """The source is moved away when its n-th file is opened, and is back for the second attempt."""
    tally = Tally("source moved away", "convert", "")
    away = source.with_name(source.name + ".gone")
    bench.clear()
    opened = run(bench.first, bench.folder, Fault(at=0, act="moved", folder=source, reads=True)).operations
    for number in sampled(len(opened), most, rng):
        bench.clear()
        ended = run(bench.first, bench.folder, Fault(at=number, act="moved", folder=source, reads=True))
        if away.exists():
            away.rename(source)
        _judge(bench, ended, tally, f"source moved away at its file {number} of {len(opened)}")
    return tally
