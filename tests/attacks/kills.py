"""Kill every verb at its file operations, and between the bytes it writes; then give the command again.

Nothing may be lost: the second attempt ends with the result of an undisturbed one and leaves nothing beside it.
"""

import random
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from attacks.children import Ended, Fault, run
from attacks.material import WRITERS, words
from attacks.results import Tally, Undisturbed, contents


@cache
def bench_of(name: str, material: Path, work: Path) -> "Bench":
    """The bench of a writer, one for all attacks."""
    return Bench(name, material, work)


class Bench:
    """One writer, the place it writes to, and what it writes when left alone."""

    def __init__(self, name: str, material: Path, work: Path) -> None:
        writer = WRITERS[name]
        self.name, self.folder = name, work / name
        self.first = words(writer.words, material)
        self.again = self.first + writer.again.split()
        self.folder.mkdir(parents=True, exist_ok=True)
        results = []
        for _ in range(2):
            self.clear()
            self.quiet = run(self.first, self.folder, self.fault(0, "kill"))
            if self.quiet.code != 0:
                raise RuntimeError(f"{name} fails undisturbed: {self.quiet.errors}")
            results.append(contents(self.out))
        self.expected = Undisturbed.of(*results)

    @property
    def out(self) -> Path:
        """The folder of what is written."""
        return self.folder / "out"

    @property
    def operations(self) -> tuple[str, ...]:
        """The file operations of an undisturbed run."""
        return self.quiet.operations

    def fault(self, at: int, act: str) -> Fault:
        """A fault at an operation below the place written to."""
        return Fault(at=at, act=act, folder=self.out)

    def clear(self) -> None:
        """Take away what is there."""
        shutil.rmtree(self.folder)
        self.out.mkdir(parents=True)

    def difference(self) -> str:
        """How what is there now differs from what an undisturbed run leaves; empty if it does not."""
        return self.expected.difference(contents(self.out))

    def recover(self, disturbed: Ended, tally: Tally, what: str, refused: bool = False) -> None:
        """Give the command again after something went wrong, and judge what is there then.

        Args:
            refused: count a recovered attempt as refused, because the disturbed one ended with an error.
        """
        if disturbed.traceback or disturbed.code is None:
            tally.add("wrong", f"{what}: {disturbed.how}")
            return
        again = run(self.again, self.folder)
        try:
            difference = self.difference()
        except ValueError as error:  # half a JSON file
            difference = f"cannot be read: {error}"
        if again.traceback or (again.code != 0 and (difference or not again.told)):
            tally.add("wrong", f"{what}: given again it ended with {again.how}")
        elif difference:
            tally.add("wrong", f"{what}: {difference}")
        else:
            tally.add("refused" if refused else "recovered")


def sampled(count: int, most: int | None, rng: random.Random) -> list[int]:
    """Numbers from 1 to `count`: all, or `most` of them, one in each of as many equal parts."""
    if most is None or most >= count:
        return list(range(1, count + 1))
    return [1 + rng.randrange(i * count // most, (i + 1) * count // most) for i in range(most)]


def attack(material: Path, work: Path, verbs: list[str], most: int | None, rng: random.Random) -> Iterator[Tally]:
    """Kill each of `verbs` at every operation, or at `most` of them."""
    for name in verbs:
        bench = bench_of(name, material, work)
        tally = Tally("killed at an operation", name, "")
        for number in sampled(len(bench.operations), most, rng):
            bench.clear()
            killed = run(bench.first, bench.folder, bench.fault(number, "kill"))
            bench.recover(killed, tally, f"killed at operation {number}, {bench.operations[number - 1]}")
        yield tally
        tally = Tally("killed within a write", name, "")
        for size in sizes(bench, most, rng):
            bench.clear()
            killed = run(bench.first, bench.folder, limit=size, torn=True)
            bench.recover(killed, tally, f"killed at byte {size} of a file")
        yield tally


def sizes(bench: Bench, most: int | None, rng: random.Random) -> list[int]:
    """Sizes at which at least one file of an undisturbed result is not yet whole."""
    whole = sorted({path.stat().st_size for path in bench.out.rglob("*") if path.is_file()})
    chosen = [rng.randrange(size) for size in whole if size] * 2
    rng.shuffle(chosen)
    return chosen[: 20 if most is None else max(1, most // 2)]
