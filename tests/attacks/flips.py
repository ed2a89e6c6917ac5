"""Damage every kind of file in every class of its bytes, then run the verb that reads it.

Allowed are an error in one line that names the file, or the result of the undamaged file. Text that people write or
may edit (a recipe, the JSON beside a run) carries no checksum: where damage makes other valid text of it, another
result is counted as believed.
"""

import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq

from attacks.children import run
from attacks.material import words
from attacks.results import Tally, Undisturbed, contents
from prunekd.store.format.beton import HEADER, read_header

Region = tuple[int, int]
TOKENS = re.compile(
    rb'(?P<keys>"[^"\n]*"(?=:)|\b[a-z_]+(?=: ))|(?P<texts>"[^"\n]*"|[a-z_]\w+)|(?P<numbers>[-\d.]+)'
    rb"|(?P<structure>[\[\]{},:])"
)
FROZEN = "--workers 1 --teacher-precision fp32 --teacher-compile off --device cpu"
SCORE = f"score @store --teacher @teacher {FROZEN} --out out/s.parquet"
TRAIN = "train @store --recipe @recipe.yaml --workers 1 --device cpu --out out/run"
REPORT = "report @sweep --format json --out out/report.json"
RUN = "sweep/runs/kd-random-keep0.5-seed0"


@dataclass(frozen=True, slots=True)
class Reader:
    """A file of the material and the command that reads it.

    Attributes:
        words: the command; `@NAME` is the material, of which the damaged part is a copy.
        edited: it is text that people may edit, without a checksum.
        place: where the copy of its folder goes, if the command goes on in it.
    """

    words: str
    edited: bool = False
    place: str = ""


READERS = {
    "store/train.beton": Reader(SCORE),
    "store/train.index.parquet": Reader(SCORE),
    "store/store.json": Reader(SCORE),
    "scores.parquet": Reader("select @store --policy medium --scores @scores.parquet --keep 0.5 --out out/h.parquet"),
    "features.npy": Reader("select @store --policy herding --features @features.npy --keep 0.5 --out out/h.parquet"),
    "half.parquet": Reader("export @store --subset @half.parquet --format npy --out out/ids"),
    "labels/labels.json": Reader(TRAIN + " --labels @labels"),
    "labels/logits.npy": Reader(TRAIN + " --labels @labels"),
    "labels/sample_ids.npy": Reader(TRAIN + " --labels @labels"),
    "teacher/model.safetensors": Reader(SCORE),
    "teacher/run.json": Reader(SCORE, edited=True),
    "stopped/run.json": Reader(TRAIN + " --resume auto", edited=True, place="out/run"),
    "stopped/metrics.jsonl": Reader(TRAIN + " --resume auto", edited=True, place="out/run"),
    **{
        f"stopped/checkpoints/step-00000002/{name}": Reader(TRAIN + " --resume auto", place="out/run")
        for name in ("state.json", "model.safetensors", "optimizer.safetensors", "state.safetensors")
    },
    "sweep/sweep.json": Reader(REPORT, edited=True),
    "sweep/ledger.json": Reader(REPORT, edited=True),
    f"{RUN}/run.json": Reader(REPORT, edited=True),
    f"{RUN}/result.json": Reader(REPORT, edited=True),
    f"{RUN}/metrics.jsonl": Reader(REPORT, edited=True),
    "recipe.yaml": Reader(TRAIN, edited=True),
}  # fmt: skip


def regions(path: Path) -> dict[str, list[Region]]:
    """The classes of bytes of a file: name to (start, stop) of where they lie."""
    size = path.stat().st_size
    if path.suffix in (".json", ".jsonl", ".yaml"):
        found: dict[str, list[Region]] = {}
        for token in TOKENS.finditer(path.read_bytes()):
            found.setdefault(str(token.lastgroup), []).append(token.span())
        return found
    if path.suffix == ".parquet":
        footer = size - 8 - int.from_bytes(path.read_bytes()[-8:-4], "little")
        return {"magic": [(0, 4), (size - 4, size)], "pages": [(4, footer)], "footer": [(footer, size - 8)],
                "footer length": [(size - 8, size - 4)]}  # fmt: skip
    if path.suffix == ".safetensors":
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        return {"header length": [(0, 8)], "header": [(8, header)], "payload": [(header, size)]}
    if path.suffix == ".npy":
        return {"magic": [(0, 10)], "header": [(10, 128)], "payload": [(128, size)]}
    return _beton(path)


def _beton(path: Path) -> dict[str, list[Region]]:
    header = read_header(path)
    rows = header.metadata_ptr, header.metadata_ptr + header.num_samples * header.metadata_type.itemsize
    index = pq.read_table(path.with_name("train.index.parquet"), columns=["pointer", "size"]).to_pylist()
    return {
        "header": [(0, HEADER.itemsize)],
        "fields": [(HEADER.itemsize, header.metadata_ptr)],
        "metadata": [rows],
        "allocation table": [(header.alloc_table_ptr, path.stat().st_size)],
        "payload": [(row["pointer"], row["pointer"] + row["size"]) for row in index],
    }


def damage(path: Path, places: list[Region], rng: random.Random) -> str:
    """Damage one place of a file; says how."""
    start, stop = rng.choice(places)
    at = rng.randrange(start, stop)
    with open(path, "r+b") as file:
        file.seek(at)
        old = file.read(1)[0]
        kind = rng.choice(("bit", "bit", "ones", "zeros", "cut"))
        if kind == "cut":
            file.truncate(at)
            return f"cut at byte {at}"
        run_of = min(8, stop - at) if kind == "zeros" else 1
        new = {"bit": bytes([old ^ 1 << rng.randrange(8)]), "ones": b"\xff", "zeros": bytes(run_of)}[kind]
        file.seek(at)
        file.write(new)
    return f"{kind} at byte {at}: {old:#04x} became {new[0]:#04x}"


def attack(material: Path, work: Path, verbs: list[str], most: int | None, rng: random.Random) -> Iterator[Tally]:
    """Damage each file that one of `verbs` reads: 12 times in each class of its bytes, or `most` times in all."""
    for file, reader in READERS.items():
        if reader.words.split()[0] not in verbs:
            continue
        reading = reading_of(reader.words, reader.place, file.split("/")[0], material, work / "flips")
        tally = Tally("damaged file", reading.line[0], re.sub(r"runs/[^/]+", "runs/*", file))
        reading.restore()
        classes = list(regions(reading.path(file)).items())
        rng.shuffle(classes)
        for number in range(12 * len(classes) if most is None else most):
            name, places = classes[number % len(classes)]
            reading.restore()
            what = damage(reading.path(file), places, rng)
            reading.judge(reader, reading.path(file), tally, f"{name}: {what}")
        yield tally


@cache
def reading_of(text: str, place: str, item: str, material: Path, work: Path) -> "Reading":
    """One for all files that the same command reads."""
    return Reading(text, place, item, material, work)


class Reading:
    """A command on a copy of one part of the material, and what it makes of it undamaged."""

    def __init__(self, text: str, place: str, item: str, material: Path, work: Path) -> None:
        self.item, self.folder, self.material, self.place = item, work / f"{item}-{text.split()[0]}", material, place
        self.copy = self.folder / (place or f"given/{item}")
        self.line = words(re.sub(rf"@{re.escape(item)}(?=\s|$)", str(self.copy), text), material)
        results = []
        for _ in range(2):
            self.restore()
            quiet = run(self.line, self.folder)
            if quiet.code != 0:
                raise RuntimeError(f"{item} cannot be read undamaged: {quiet.errors}")
            results.append(contents(self.folder / "out"))
        self.expected = Undisturbed.of(*results)

    def restore(self) -> None:
        """Lay out an undamaged copy, and nothing else."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "out").mkdir(parents=True)
        self.copy.parent.mkdir(exist_ok=True)
        for path in self.material.glob(f"{self.item}*"):  # features.npy has its description beside it
            shutil.copytree(path, self.copy) if path.is_dir() else shutil.copy(path, self.copy.with_name(path.name))

    def path(self, file: str) -> Path:
        """The copy of a file of the material."""
        return self.copy.joinpath(*file.split("/")[1:])

    def judge(self, reader: Reader, target: Path, tally: Tally, what: str) -> None:
        """Run the command on the damaged file and count how it ends."""
        ended = run(self.line, self.folder)
        names = [target.parent.name if target.parent.name.startswith("step-") else target.name]
        if ended.code == 0:
            itself = str(target.relative_to(self.folder / "out")) if self.place else ""
            difference = self.expected.difference(contents(self.folder / "out"), but=itself)
            warned = any(name in ended.errors for name in names)
            if not difference:
                tally.add("recovered" if warned else "harmless")
            elif reader.edited or warned:
                tally.add("warned" if warned else "believed")
            else:
                tally.add("wrong", f"{what}: in silence, {difference}")
        elif not ended.told:
            tally.add("wrong", f"{what}: {ended.how}")
        elif reader.edited and "must be" in ended.last_line:
            tally.add("refused")  # valid text, refused for a setting that the message names
        elif not any(name in ended.errors for name in [*names, target.parent.name]):
            tally.add("wrong", f"{what}: the error does not name the file: {ended.last_line}")
        else:
            tally.add("refused")
