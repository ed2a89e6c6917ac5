"""Two of every writer at once on one target.

The first pauses at one of its file operations, the second runs from start to end, then the first goes on. Each must
succeed or be refused in one line, and the result must be whole: at once if one succeeded, else after the command is
given again.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from attacks.children import Child, run
from attacks.kills import Bench, bench_of, sampled
from attacks.results import Tally


def attack(material: Path, work: Path, verbs: list[str], most: int | None, rng: random.Random) -> Iterator[Tally]:
    """Pause each of `verbs` at up to `most` operations (20 if None) while another runs."""
    for name in verbs:
        bench = bench_of(name, material, work)
        tally = Tally("two at once", name, "")
        for number in sampled(len(bench.operations), most or 20, rng):
            bench.clear()
            _race(bench, number, tally)
        yield tally


def _race(bench: Bench, number: int, tally: Tally) -> None:
    what = f"two at once, the first paused at operation {number}, {bench.operations[number - 1]}"
    first = Child(bench.first, bench.folder, bench.fault(number, "pause"))
    paused = first.stopped()
    second = run(bench.again, bench.folder)
    if paused:
        first.resume()
    both = (first.wait(), second)
    for ended in both:
        if not (ended.code == 0 or ended.told):
            tally.add("wrong", f"{what}: {ended.how}")
            return
    if all(ended.code != 0 for ended in both):
        bench.recover(second, tally, what)
        return
    difference = bench.difference()
    if difference:
        codes = " and ".join(f"{ended.code} ({ended.last_line})" if ended.code else "0" for ended in both)
        tally.add("wrong", f"{what}: exit codes {codes}, but {difference}")
    else:
        tally.add("refused" if any(ended.code != 0 for ended in both) else "harmless")
