"""A source whose storage fails ends the conversion, which goes on later; a few bad files do not, many do."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from prunekd.cli import main
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import imagefolder, open_source
from store.datasets import cifar_folder, hugging_face, ilsvrc_archives, image_folder, webdataset_shards
from support import write_arrays

COUNT = 40
SMALL = ConvertSettings(chunk_size=4, workers=1)


def files(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir() if path.name != "store.json"}


def moved(path: Path) -> Callable[[], None]:
    path.rename(path.with_name("moved"))
    return lambda: path.with_name("moved").rename(path)


def unmounted(path: Path) -> Callable[[], None]:
    """The mount point stays behind, empty."""
    back = moved(path)
    path.mkdir()
    return lambda: (path.rmdir(), back())[1]


def other_file_system(path: Path) -> Callable[[], None]:
    """The path is there, with the folders of the splits, but not with the files."""
    back = moved(path)
    for split in ("train", "val"):
        (path / split).mkdir(parents=True)
    return lambda: (shutil.rmtree(path), back())[1]


@pytest.mark.parametrize("leave", [moved, unmounted, other_file_system])
@pytest.mark.parametrize("most", [0.01, 1.0])
def test_a_source_that_goes_away_ends_the_conversion_which_goes_on_when_it_is_back(
    tmp_path: Path, leave: Callable[[Path], Callable[[], None]], most: float, told: list[str]
) -> None:
    path = image_folder(tmp_path / "in" / "photos", count=COUNT)
    whole = convert(open_source(path), tmp_path / "whole", SMALL)
    back: list[Callable[[], None]] = []

    def go_away(done: int, total: int, quarantined: int) -> None:
        if done == 14 and not back:
            back.append(leave(path))

    settings = ConvertSettings(chunk_size=4, workers=1, max_quarantined=most)
    with pytest.raises(OSError, match=r"cannot read .* of train \(.*what is converted so far is kept.*again to go on"):
        convert(open_source(path), tmp_path / "store", settings, go_away)
    assert not (tmp_path / "store").exists()
    back[0]()
    resumed = convert(open_source(path), tmp_path / "store", settings)
    assert told == ["resuming an interrupted conversion: 12 of 80 inputs are done"]
    assert resumed.fingerprint == whole.fingerprint
    assert files(resumed.path) == files(whole.path)
    assert resumed.quarantined == []


def cifar(folder: Path, target: Path) -> Path:
    cifar_folder(target, hundred=True, python=False, count=COUNT)
    return target


MAKERS: dict[str, Callable[[Path, Path], Path]] = {
    "arrays": lambda folder, target: write_arrays(target.with_suffix(".npz"), train=COUNT, val=COUNT),
    "ilsvrc": ilsvrc_archives,
    "cifar": cifar,
    "webdataset": webdataset_shards,
    "parquet": hugging_face,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_so_do_sources_of_every_other_kind(tmp_path: Path, kind: str, told: list[str]) -> None:
    path = MAKERS[kind](image_folder(tmp_path / "folder", count=COUNT), tmp_path / "made")
    whole = convert(open_source(path, kind), tmp_path / "whole", SMALL)

    def go_away(done: int, total: int, quarantined: int) -> None:
        if done == 14 and path.exists():
            path.rename(tmp_path / "moved")

    with pytest.raises(OSError, match=r"cannot read .*what is converted so far is kept"):
        convert(open_source(path, kind), tmp_path / "store", SMALL, go_away)
    (tmp_path / "moved").rename(path)
    resumed = convert(open_source(path, kind), tmp_path / "store", SMALL)
    assert told[0].startswith("resuming")
    assert files(resumed.path) == files(whole.path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.EMFILE])
def test_errors_of_the_storage_are_not_blamed_on_a_file(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image_folder(tmp_path / "photos", count=12)
    read = imagefolder._read_file

    def failing(file: str) -> bytes:
        if file == str(path / "train" / source.keys("train")[7]):
            raise OSError(number, os.strerror(number), file)
        return read(file)

    source = open_source(path)
    monkeypatch.setattr(imagefolder, "_read_file", failing)
    with pytest.raises(OSError, match=f"cannot read {source.keys('train')[7]} of train") as caught:
        convert(source, tmp_path / "store", ConvertSettings(max_quarantined=1.0))
    assert os.strerror(number) in str(caught.value)
    assert ("good copy" in str(caught.value)) == (number == errno.EIO)


def test_a_file_that_vanishes_while_its_source_stays_is_quarantined(tmp_path: Path) -> None:
    path = image_folder(tmp_path / "photos", count=12)
    source = open_source(path)
    (path / "train" / source.keys("train")[3]).unlink()
    store = convert(source, tmp_path / "store")
    assert [one["key"] for one in store.quarantined] == [source.keys("train")[3]]
    assert "No such file" in store.quarantined[0]["reason"]


def test_a_class_that_vanishes_is_more_than_a_bad_file(tmp_path: Path) -> None:
    path = image_folder(tmp_path / "photos", count=12)
    source = open_source(path)
    shutil.rmtree(next((path / "train").iterdir()))
    with pytest.raises(OSError, match="cannot read"):
        convert(source, tmp_path / "store", ConvertSettings(max_quarantined=1.0))


def spoil(path: Path, count: int) -> None:
    for file in sorted((path / "train").rglob("*.JPEG"))[:count]:
        file.write_bytes(b"no image")


@pytest.mark.parametrize(
    ("words", "bad", "ends"),
    [
        ([], 1, False),
        ([], 2, True),
        (["--max-quarantined", "5%"], 2, False),
        (["--max-quarantined", "5%"], 3, True),
        (["--max-quarantined", "0.05"], 2, False),
        (["--max-quarantined", "3"], 3, False),
        (["--max-quarantined", "3"], 4, True),
        (["--max-quarantined", "0"], 1, True),
        (["--max-quarantined", "100%"], 12, False),
    ],
)
def test_more_unreadable_inputs_than_allowed_are_an_error(
    tmp_path: Path, words: list[str], bad: int, ends: bool
) -> None:
    path = image_folder(tmp_path / "photos", count=COUNT)
    spoil(path, bad)
    command = ["convert", str(path), str(tmp_path / "store")]
    result = CliRunner().invoke(main, [*command, *words])
    assert result.exit_code == (2 if ends else 0), result.stderr
    if ends:
        for text in (
            f"{bad} of the {COUNT} inputs of train",
            "not an image of a known format",
            "--max-quarantined 10%",
        ):
            assert text in result.stderr
        assert not (tmp_path / "store").exists()
        asked = CliRunner().invoke(main, [*command, "--max-quarantined", "100%", "--json"])
        assert asked.exit_code == 0, asked.stderr
        assert "resuming" in asked.stderr
        assert f'"quarantined": {bad}' in asked.stdout


def test_each_split_has_its_own_share(tmp_path: Path) -> None:
    path = image_folder(tmp_path / "photos", count=COUNT)
    for file in sorted((path / "val").rglob("*.JPEG"))[:5]:
        file.unlink()
    for file in sorted((path / "val").rglob("*.JPEG"))[:2]:
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="2 of the 35 inputs of val"):
        convert(open_source(path), tmp_path / "store")


@pytest.mark.parametrize("value", ["-1", "101%", "1.5", "nan", "many", "1e-3%%"])
def test_a_share_that_is_none_is_named(tmp_path: Path, value: str) -> None:
    path = image_folder(tmp_path / "photos", count=6)
    words = ["convert", str(path), str(tmp_path / "store"), f"--max-quarantined={value}"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "quarantined is" in result.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("value", ["1%", None, -1, 1.5, float("nan"), [1]])
def test_settings_refuse_what_is_no_share_and_no_count(value: Any) -> None:
    with pytest.raises(ValueError, match=r"max_quarantined is .*a float from 0\.0 to 1\.0, or a count"):
        ConvertSettings(max_quarantined=value)


def test_links_to_themselves_are_quarantined_or_counted(tmp_path: Path) -> None:
    path = image_folder(tmp_path / "photos", count=12)
    name = next((path / "train").iterdir()).name
    for link in ("loop.jpg", "loop", f"{name}/loop.jpg", f"{name}/loop"):
        (path / "train" / link).symlink_to(path / "train" / link)
    (path / "val" / name / "other.png").symlink_to(path / "val" / name / "loop.png")
    (path / "val" / name / "loop.png").symlink_to(path / "val" / name / "other.png")
    (path / "loop").symlink_to(path / "loop")
    store = convert(open_source(path), tmp_path / "store", ConvertSettings(max_quarantined=2))
    assert {(one["key"], one["reason"]) for one in store.quarantined} == {
        (f"{name}/{file}", "a link to itself") for file in ("loop.jpg", "loop.png", "other.png")
    }
    assert store.ignored == {"outside a class folder": 2, "no extension": 1}
