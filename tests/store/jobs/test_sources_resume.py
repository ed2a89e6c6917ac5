"""A conversion killed at any moment goes on to the same bytes, from every kind of source."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prunekd.input import ViewSettings, open_reader, train_plan
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import SOURCES, open_source
from store.datasets import cifar_folder, hugging_face, ilsvrc_archives, image_folder, webdataset_shards
from support import write_arrays

COUNT = 40
SLOW_CONVERT = """
import sys, time
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
def slowly(done, total, quarantined):
    print(done, flush=True)
    time.sleep(0.004)
convert(open_source(sys.argv[1]), sys.argv[2], ConvertSettings(chunk_size=4), slowly)
"""


def cifar(folder: Path, target: Path) -> Path:
    cifar_folder(target, hundred=True, python=True, count=COUNT)
    return target


MAKERS: dict[str, Callable[[Path, Path], Path]] = {
    "arrays": lambda folder, target: write_arrays(target.with_suffix(".npz"), train=COUNT, val=COUNT),
    "ilsvrc": ilsvrc_archives,
    "cifar": cifar,
    "webdataset": webdataset_shards,
    "parquet": hugging_face,
    "imagefolder": lambda folder, target: folder,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_conversion_killed_twice_ends_in_the_same_files(tmp_path: Path, kind: str, told: list[str]) -> None:
    chance = random.Random()
    path = MAKERS[kind](image_folder(tmp_path / "folder", count=COUNT), tmp_path / "made")
    whole = convert(open_source(path, kind), tmp_path / "whole", ConvertSettings(chunk_size=4))
    points = [chance.randrange(1, COUNT), chance.randrange(COUNT, 2 * COUNT - 1)]
    for point in points:
        with subprocess.Popen(
            [sys.executable, "-c", SLOW_CONVERT, str(path), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= point:
                    process.send_signal(signal.SIGKILL)
                    break
            process.wait()
        assert process.returncode == -signal.SIGKILL, points
        assert not (tmp_path / "store").exists()
    resumed = convert(open_source(path), tmp_path / "store", ConvertSettings(chunk_size=4))
    assert "resuming" in told[0], points
    assert resumed.fingerprint == whole.fingerprint, points
    for name in ("train.beton", "val.beton", "train.index.parquet"):
        assert (tmp_path / "store" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), points


@pytest.mark.parametrize("kind", ["ilsvrc", "webdataset", "parquet", "cifar"])
def test_a_source_that_changed_in_between_is_converted_from_the_start(
    tmp_path: Path, kind: str, told: list[str]
) -> None:
    path = MAKERS[kind](image_folder(tmp_path / "folder", count=COUNT), tmp_path / "made")

    def stop(done: int, total: int, quarantined: int) -> None:
        if done > COUNT:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(open_source(path), tmp_path / "store", ConvertSettings(chunk_size=4), stop)
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes())  # the same bytes, at another time
    convert(open_source(path), tmp_path / "store", ConvertSettings(chunk_size=4))
    assert told == ["starting over: the input files of train changed since the interrupted conversion"]


@pytest.mark.parametrize("kind", ["ilsvrc", "webdataset", "parquet", "cifar"])
def test_the_torch_reader_reads_the_source_from_its_processes(tmp_path: Path, kind: str) -> None:
    path = MAKERS[kind](image_folder(tmp_path / "folder", count=COUNT), tmp_path / "made")
    store = convert(open_source(path), tmp_path / "store")
    view = ViewSettings(size=16, kind="center")
    plan = train_plan(store.split("train"), ids=None, seed=0, epoch=0, batch_size=8, view=view)
    found = []
    for name, workers in (("native", 1), ("torch", 2)):
        with open_reader(name, store, "train", workers=workers) as reader:
            found.append([(b.images.clone(), b.labels.clone(), b.ids.clone()) for b in reader.epoch(plan)])
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine[1], theirs[1])
        assert torch.equal(mine[2], theirs[2])
        assert (mine[0].int() - theirs[0].int()).abs().max() <= 2  # two builds of libjpeg-turbo
