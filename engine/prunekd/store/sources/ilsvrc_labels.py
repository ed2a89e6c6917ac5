"""The classes of ILSVRC2012's validation images, from whichever file says them."""

import csv
import importlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

TABLES = ("val_labels.csv", "val_labels.txt", "LOC_val_solution.csv")
DEVKIT = "ILSVRC2012_devkit_t12"
GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_MAX_BYTES = 64 << 20  # far above any of these files


def read_val_labels(root: Path, stems: Sequence[str]) -> dict[str, str]:
    """Class names by the image's file name without extension. The first of these that is there counts:

    1. a table of two columns, file name and class, separated by a comma or blanks: `val_labels.csv`, `val_labels.txt`,
       or Kaggle's `LOC_val_solution.csv`. Extensions, folders before the name, words after the class and a header line
       do not matter;
    2. the development kit: `ILSVRC2012_validation_ground_truth.txt` (line k: the number of the class of
       `ILSVRC2012_val_0000000k`) with `meta.mat` (which class has which number), in `root`, in
       `ILSVRC2012_devkit_t12/data`, or inside `ILSVRC2012_devkit_t12.tar.gz`. Needs SciPy.

    Args:
        root: where the archives lie.
        stems: the images to be labelled; they tell a header line from a first row.

    Raises:
        ValueError: none of them is there, or one cannot be read.
    """
    for name in TABLES:
        if (root / name).is_file():
            return _table(root / name, set(stems))
    for folder in (root, root / DEVKIT / "data"):
        if (folder / GROUND_TRUTH).is_file() and (folder / META).is_file():
            return _from_devkit(_limited(folder / GROUND_TRUTH), _limited(folder / META), folder)
    archive = root / f"{DEVKIT}.tar.gz"
    if archive.is_file():
        return _from_devkit(*_devkit_members(archive), archive)
    raise ValueError(
        f"{root} has the validation archive but not its labels; put {DEVKIT}.tar.gz there, or a file {TABLES[0]} with "
        "lines FILE,CLASS; or move the validation archive away to convert without it"
    )


def _table(path: Path, stems: set[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    text = _limited(path).decode("utf-8-sig", "replace")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        stem = PurePosixPath(words[0]).stem
        if number == 1 and stem not in stems:
            continue  # a header
        if len(words) < 2:
            raise ValueError(f"line {number} of {path} is {line!r}; it must hold a file name and a class")
        if labels.setdefault(stem, words[1]) != words[1]:
            raise ValueError(f"line {number} of {path} gives {words[0]} a second class, {words[1]}")
    return labels


def _from_devkit(ground_truth: bytes, meta: bytes, where: Path) -> dict[str, str]:
    names = _class_numbers(meta, where)
    labels = {}
    for position, row in enumerate(csv.reader(io.StringIO(ground_truth.decode("ascii", "replace"))), start=1):
        if not row:
            continue
        word = row[0].strip()
        if not word.isdecimal() or int(word) not in names:
            raise ValueError(f"line {position} of {GROUND_TRUTH} in {where} is {word!r}, no number of a class")
        labels[f"ILSVRC2012_val_{position:08d}"] = names[int(word)]
    return labels


def _class_numbers(meta: bytes, where: Path) -> dict[int, str]:
    """Synset by ILSVRC2012_ID. The numbers do not follow the synsets' order."""
    try:
        scipy_io = importlib.import_module("scipy.io")
    except ImportError:
        raise ValueError(
            f"reading {META} needs SciPy; install it (pip install scipy) or write a file {TABLES[0]} with lines "
            "FILE,CLASS"
        ) from None
    try:
        synsets = scipy_io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        pairs = zip(synsets["ILSVRC2012_ID"].reshape(-1), synsets["WNID"].reshape(-1), strict=True)
        return {int(number): str(name) for number, name in pairs}
    except Exception as error:  # SciPy raises nearly every type on a damaged file
        raise ValueError(f"{META} in {where} is not that of the development kit ({error!r})") from None


def _devkit_members(archive: Path) -> tuple[bytes, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if name in (GROUND_TRUTH, META) and member.isreg() and member.size <= _MAX_BYTES:
                    file = tar.extractfile(member)
                    assert file is not None
                    found[name] = file.read()
                if len(found) == 2:
                    return found[GROUND_TRUTH], found[META]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{archive} cannot be read ({error}); download it again") from None
    raise ValueError(f"{archive} lacks {GROUND_TRUTH} or {META}; download it again")


def _limited(path: Path) -> bytes:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path} has more than {_MAX_BYTES} bytes; it is no list of labels")
    return path.read_bytes()
