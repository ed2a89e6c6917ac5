"""Exports read back by those they are for: DALI's readers, torchvision, and parsers written from the formats' texts."""

import errno
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.readers.class_map import load_class_map
from timm.data.readers.reader_image_folder import find_images_and_targets
from torchvision.datasets import ImageFolder

from prunekd.cli import main
from prunekd.cli.export import _summary
from prunekd.common.files import read_json
from prunekd.store import Store, open_store
from prunekd.store.format.crc import CRC32C, crc32c
from prunekd.store.jobs.containers import CONTAINERS, MAGIC, Exported, add_recordio
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.jobs.export import FORMATS, ExportSettings, class_folders, export
from prunekd.store.jobs.room import human_bytes
from prunekd.store.sources import open_source
from support import require, write_arrays

KEPT = np.array([11, 2, 17, 4, 8, 23, 0])  # a ranking; class 1 of 3 loses all its samples


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """24 photographs in 3 classes; ids 0 to 7 are of the first; two PNGs are stored raw."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for k in range(24):
        image = Image.fromarray(rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8))
        path = folder / "source" / "train" / f"class {k // 8}" / f"{k:02} a.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = image.resize((40 + k, 30), Image.Resampling.BICUBIC)
        if k in (4, 20):
            image.save(path.with_suffix(".png"))
        else:
            image.save(path, quality=92)
    return convert(open_source(folder / "source"), folder / "store", ConvertSettings(mode="auto"))


def pixels(store: Store, sample: int) -> np.ndarray:
    split = store.split("train")
    (row,) = split.rows(np.array([sample])).tolist()
    with split.payloads() as payloads:
        data = payloads.read(row)
    if split.modes[row]:
        return np.frombuffer(data, np.uint8).reshape(split.heights[row], split.widths[row], 3)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def by_dali(reader: str, count: int, decoded: int = 0, **more: Any) -> list[tuple[np.ndarray, ...]]:
    """What one of DALI's readers gives for the first `count` samples, output number `decoded` decoded."""
    require("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline() -> tuple[Any, ...]:
        found = getattr(fn.readers, reader)(name="reader", **more)
        outputs = list(found.values()) if isinstance(found, dict) else list(found)
        outputs[decoded] = fn.decoders.image(outputs[decoded])
        return tuple(outputs)

    built = pipeline()
    built.build()
    assert built.reader_meta("reader")["epoch_size"] == count  # the pruned index and no more
    return [tuple(np.array(output[0]) for output in built.run()) for _ in range(count)]


def assert_pixels(store: Store, ids: np.ndarray, images: list[np.ndarray]) -> None:
    for sample, image in zip(ids.tolist(), images, strict=True):
        expected = pixels(store, sample)
        assert image.shape == expected.shape
        assert np.abs(image.astype(int) - expected).max() <= 3  # another build of libjpeg-turbo


@pytest.mark.dali
@pytest.mark.parametrize("form", ["file_list", "folder", "links"])
def test_dali_reads_a_file_list_with_ids_as_labels(photos: Store, tmp_path: Path, form: str) -> None:
    settings_ = ExportSettings(format="folder" if form == "links" else form, links=form == "links")
    export(photos, KEPT, tmp_path / "out", settings_)
    found = by_dali("file", len(KEPT), file_list=str(tmp_path / "out/file_list.txt"))
    assert [int(label[0]) for _, label in found] == KEPT.tolist()
    assert_pixels(photos, KEPT, [image for image, _ in found])


def read_tfrecord(folder: Path, count: int) -> list[tuple[np.ndarray, ...]]:
    require("nvidia.dali")
    from nvidia.dali import tfrecord

    return by_dali(
        "tfrecord",
        count,
        path=sorted(map(str, folder.glob("*.tfrecord"))),
        index_path=sorted(map(str, folder.glob("*.idx"))),
        features={
            "image/encoded": tfrecord.FixedLenFeature((), tfrecord.string, ""),
            "image/class/label": tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
            "image/id": tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
            "image/filename": tfrecord.FixedLenFeature((), tfrecord.string, ""),
        },
    )


def read_records(form: str, folder: Path, count: int) -> tuple[list[np.ndarray], list[int], list[int] | None]:
    """Images, labels and ids by DALI's reader of a container."""
    if form == "tfrecord":
        found = read_tfrecord(folder, count)
        return [f[0] for f in found], [int(f[1][0]) for f in found], [int(f[2][0]) for f in found]
    indices = sorted(map(str, folder.glob("*.idx")))
    if form == "recordio":
        found = by_dali("mxnet", count, path=sorted(map(str, folder.glob("*.rec"))), index_path=indices)
        return [f[0] for f in found], [int(f[1][0]) for f in found], None
    paths = sorted(map(str, folder.glob("*.tar")))
    found = by_dali("webdataset", count, paths=paths, index_paths=indices, ext=["jpg;png", "cls", "id"])
    labels, ids = ([int(f[k].tobytes()) for f in found] for k in (1, 2))
    return [f[0] for f in found], labels, ids


@pytest.mark.dali
@pytest.mark.parametrize(
    ("form", "shard_bytes"), [*((form, None) for form in CONTAINERS), ("tfrecord", 4000), ("webdataset", 4000)]
)
def test_dali_reads_records_of_the_kept_alone(
    photos: Store, tmp_path: Path, form: str, shard_bytes: int | None
) -> None:
    info = export(photos, KEPT, tmp_path / "out", ExportSettings(format=form, shard_bytes=shard_bytes))
    assert (len(info["shards"]) > 1) == (shard_bytes is not None)
    images, labels, ids = read_records(form, tmp_path / "out", len(KEPT))
    assert labels == (KEPT // 8).tolist()
    assert ids in (None, KEPT.tolist())
    assert_pixels(photos, KEPT, images)


@pytest.mark.dali
@pytest.mark.parametrize("form", list(CONTAINERS))
def test_indices_of_a_subset_over_the_containers_of_all(photos: Store, tmp_path: Path, form: str) -> None:
    """Nothing but indices is written; DALI reads the kept samples in the containers' order."""
    everything = photos.split("train").ids[::-1]
    export(photos, everything, tmp_path / "all", ExportSettings(format=form))
    info = export(
        photos,
        KEPT,
        tmp_path / "out",
        ExportSettings(format=form),
        containers=tmp_path / "all",
        weights=KEPT.astype(np.float32) / 2,
    )
    expected = np.sort(KEPT)[::-1]
    assert np.load(tmp_path / "out/ids.npy").tolist() == expected.tolist()
    assert np.load(tmp_path / "out/weights.npy").tolist() == (expected / 2).tolist()
    assert np.load(tmp_path / "out/labels.npy").tolist() == (expected // 8).tolist()
    assert sum(p.stat().st_size for p in (tmp_path / "out").iterdir() if not p.is_symlink()) < 6000
    assert info["containers"] == str(tmp_path / "all")
    images, labels, ids = read_records(form, tmp_path / "out", len(KEPT))
    assert labels == (expected // 8).tolist()
    assert ids in (None, expected.tolist())
    assert_pixels(photos, expected, images)


@pytest.mark.parametrize("form", ["tfrecord", "webdataset"])
def test_containers_without_a_kept_sample_are_left_out(photos: Store, tmp_path: Path, form: str) -> None:
    small = ExportSettings(format=form, shard_bytes=1)
    export(photos, photos.split("train").ids, tmp_path / "all", small)
    info = export(photos, KEPT, tmp_path / "out", small, containers=tmp_path / "all")
    names = [f"train-{k:05}{CONTAINERS[form].suffix}" for k in sorted(KEPT.tolist())]
    assert [shard["file"] for shard in info["shards"]] == names
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_symlink()) == names
    assert len(list((tmp_path / "out").glob("*.idx"))) == len(KEPT)


@pytest.mark.dali
@pytest.mark.parametrize(("form", "tool"), [("tfrecord", "tfrecord2idx"), ("webdataset", "wds2idx")])
def test_indices_are_those_of_dalis_own_tools(photos: Store, tmp_path: Path, form: str, tool: str) -> None:
    require("nvidia.dali")
    script = shutil.which(tool, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert script, f"{tool} comes with DALI"
    export(photos, KEPT, tmp_path / "out", ExportSettings(format=form))
    (container,) = (tmp_path / "out").glob(f"*{CONTAINERS[form].suffix}")
    theirs = tmp_path / "theirs.idx"
    subprocess.run([sys.executable, script, container, theirs], check=True, capture_output=True)
    assert container.with_suffix(".idx").read_text() == theirs.read_text()


def test_tfrecords_have_the_checksums_that_tensorflow_wants(photos: Store, tmp_path: Path) -> None:
    export(photos, KEPT, tmp_path / "out", ExportSettings(format="tfrecord"))
    (path,) = (tmp_path / "out").glob("*.tfrecord")
    data, position, count = path.read_bytes(), 0, 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        body = data[position + 12 : position + 12 + length]
        for part, at in ((data[position : position + 8], position + 8), (body, position + 12 + length)):
            crc = bitwise(part)
            assert struct.unpack_from("<I", data, at)[0] == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
        position, count = position + 16 + length, count + 1
    assert count == len(KEPT)


def bitwise(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ CRC32C * (crc & 1)
    return crc ^ 0xFFFFFFFF


@given(st.binary(max_size=100))
def test_crc32c_is_that_of_its_definition(data: bytes) -> None:
    assert crc32c(data) == bitwise(data)


def test_crc32c_of_rfc_3720() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E


def read_recordio(data: bytes) -> list[bytes]:
    """Records of a RecordIO file, from dmlc's description of it."""
    records: list[bytes] = []
    while data:
        assert data[:4] == MAGIC
        word = struct.unpack("<I", data[4:8])[0]
        flag, length = word >> 29, word & (1 << 29) - 1
        part, data = data[8 : 8 + length], data[8 + length + -length % 4 :]
        records.append(part) if flag in (0, 1) else records.append(records.pop() + MAGIC + part)
        assert all(part[k : k + 4] != MAGIC for k in range(0, length, 4))
    return records


@settings(max_examples=200)
@given(st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=7)), max_size=8))
def test_recordio_survives_magic_numbers_in_the_data(parts: list[bytes]) -> None:
    file = io.BytesIO()
    payload = b"".join(parts)
    for sample in (5, 6):
        line = add_recordio(file, Exported(sample, 3, "key", payload, "jpg"))
        assert line.split("\t")[0] == str(sample)
    for sample, record in zip((5, 6), read_recordio(file.getvalue()), strict=True):
        assert struct.unpack("<IfQQ", record[:24]) == (0, 3.0, sample, 0)
        assert record[24:] == payload


@pytest.mark.dali
def test_dali_reads_a_record_with_magic_numbers_in_it(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    plain = io.BytesIO()
    image.save(plain, "BMP")
    data = bytearray(plain.getvalue())
    data[56:60], data[64:68] = MAGIC, MAGIC  # pixels, at multiples of 4 with the header of 24 bytes
    with (tmp_path / "a.rec").open("wb") as file:
        line = add_recordio(file, Exported(1, 7, "key", bytes(data), "bmp"))
    (tmp_path / "a.idx").write_text(line)
    ((found, label),) = by_dali("mxnet", 1, path=[str(tmp_path / "a.rec")], index_path=[str(tmp_path / "a.idx")])
    assert label.tolist() == [7.0]
    assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(data))))
    assert not np.array_equal(found, np.asarray(image))


def test_a_folder_keeps_the_numbers_of_classes_that_lost_their_samples(photos: Store, tmp_path: Path) -> None:
    kept = KEPT[KEPT // 8 != 1]
    export(photos, kept, tmp_path / "out", ExportSettings(format="folder"))
    folder = ImageFolder(str(tmp_path / "out"), allow_empty=True)
    assert folder.classes == list(photos.classes)
    assert {Path(path).stem: label for path, label in folder.samples} == {f"{k:09}": k // 8 for k in kept.tolist()}
    for path, _ in folder.samples:
        assert_pixels(photos, np.array([int(Path(path).stem)]), [np.asarray(Image.open(path).convert("RGB"))])


def test_a_class_map_gives_other_readers_the_same_numbers(photos: Store, tmp_path: Path) -> None:
    kept = KEPT[KEPT // 8 != 1]
    info = export(photos, kept, tmp_path / "out", ExportSettings(format="folder"))
    assert info["empty_classes"] == [photos.classes[1]]
    classes = load_class_map(info["class_map"], str(tmp_path / "out"))
    found, _ = find_images_and_targets(str(tmp_path / "out"), class_to_idx=classes)
    assert {int(Path(path).stem): label for path, label in found} == {k: k // 8 for k in kept.tolist()}
    assert list(classes) == info["folders"] == list(photos.classes)
    told = CliRunner().invoke(
        main, ["export", str(photos.path), "--format", "folder", "--out", str(tmp_path / "all"), "--json"]
    )
    assert json.loads(told.stdout)["empty_classes"] == []


def test_the_verb_says_which_classes_are_empty(photos: Store, tmp_path: Path) -> None:
    info = export(photos, np.arange(8), tmp_path / "out", ExportSettings(format="folder"))
    text = _summary(tmp_path / "out", info)
    assert f"classes without images ({len(photos.classes) - 1}: class 1, ...) have an empty folder" in text
    assert f"--class-map {tmp_path / 'out' / 'classes.txt'}" in text


KILLED = """
import os, signal, sys
import numpy as np
from prunekd.store import open_store
from prunekd.store.jobs.export import ExportSettings, export
def progress(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
export(open_store(sys.argv[1]), np.arange(6), sys.argv[2], ExportSettings(format="folder"), progress=progress)
"""


def test_what_a_killed_export_left_is_removed_by_the_next_one(photos: Store, tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(photos.path), str(tmp_path / "out")])
        assert done.returncode == -signal.SIGKILL
        assert [path.name for path in tmp_path.iterdir()] == [".out.export"]
    export(photos, np.arange(6), tmp_path / "out", ExportSettings(format="folder"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len(list((tmp_path / "out").rglob("*.*g"))) == 6


def test_two_exports_to_one_target_do_not_mix(photos: Store, tmp_path: Path) -> None:
    def again(done: int, total: int) -> None:
        with pytest.raises(RuntimeError, match="another export is writing"):
            export(photos, np.arange(4), tmp_path / "out", ExportSettings(format="folder"))

    export(photos, np.arange(6), tmp_path / "out", ExportSettings(format="folder"), progress=again)
    assert np.load(tmp_path / "out/ids.npy").tolist() == list(range(6))


def test_a_full_disk_is_told_with_what_is_needed(
    photos: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    needed = human_bytes(int(photos.split("train").sizes[photos.split("train").rows(KEPT)].sum()))
    with pytest.raises(
        OSError, match=rf"cannot export to .*/out: .*No space left .*about {needed} are needed, .* free"
    ):
        export(photos, KEPT, tmp_path / "out", ExportSettings(format="folder"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": [{"file": "../x.tfrecord", "samples": 10}]}, "a list of {file, samples}"),
        ({"shards": [{"file": "train-00000.tfrecord", "samples": 9}]}, "another number of samples"),
        ({"shards": 7}, "a list of {file, samples}"),
        ({"store": None}, "'store' must be a map"),
        ({"format": 3}, "lacks the format"),
        ({"samples": 3}, "another number of samples"),
    ],
)
def test_damaged_exports_are_named(photos: Store, tmp_path: Path, change: dict[str, object], message: str) -> None:
    settings_ = ExportSettings(format="tfrecord")
    info = export(photos, np.arange(10), tmp_path / "ten", settings_)
    (tmp_path / "ten/export.json").write_text(json.dumps({**info, **change}))
    with pytest.raises(ValueError, match=rf"export.json is damaged: .*{message}"):
        export(photos, np.arange(4), tmp_path / "out", settings_, containers=tmp_path / "ten")
    np.save(tmp_path / "ten/ids.npy", np.zeros(10))
    (tmp_path / "ten/export.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="must hold different ids"):
        export(photos, np.arange(4), tmp_path / "out", settings_, containers=tmp_path / "ten")


@pytest.mark.parametrize(
    "classes",
    [
        ["a\nb", "c"],
        ["a ", "b"],
        ["a", "classes.txt"],
        ["cat", "ant"],
        ["a/b", "c"],
        ["..", "x"],
        ["a", "a"],
        ["", "b"],
        ["a", "ids.npy"],
        [str(k) for k in range(12)],
    ],
)
def test_folders_of_odd_class_names_sort_as_the_classes(classes: list[str]) -> None:
    names = class_folders(classes)
    assert names == sorted(set(names))
    assert len(names) == len(classes)
    assert all("/" not in name and name not in ("", ".", "..", "ids.npy") for name in names)
    assert class_folders(["ant", "cat"]) == ["ant", "cat"]


def test_webdataset_members_are_plain_tar(photos: Store, tmp_path: Path) -> None:
    export(photos, KEPT, tmp_path / "out", ExportSettings(format="webdataset", label="id"))
    (path,) = (tmp_path / "out").glob("*.tar")
    with tarfile.open(path) as tar:
        names = tar.getnames()
        assert names[:3] == ["000000011.jpg", "000000011.cls", "000000011.id"]
        assert "000000004.png" in names
        member = tar.extractfile("000000017.cls")
        assert member is not None
        assert member.read() == b"17"


def test_every_export_says_what_it_is(photos: Store, tmp_path: Path) -> None:
    for form in FORMATS:
        weights = np.linspace(0, 1, len(KEPT), dtype=np.float32)
        info = export(
            photos,
            KEPT,
            tmp_path / form,
            ExportSettings(format=form),
            weights=weights,
            subset={"policy": "random"},
        )
        assert info == read_json(tmp_path / form / "export.json")
        assert (info["format"], info["samples"], info["split"]) == (form, len(KEPT), "train")
        assert info["store"]["fingerprint"] == photos.fingerprint
        assert info["subset"] == {"policy": "random"}
        assert np.array_equal(np.load(tmp_path / form / "ids.npy"), KEPT)
        assert np.array_equal(np.load(tmp_path / form / "labels.npy"), KEPT // 8)
        assert np.array_equal(np.load(tmp_path / form / "weights.npy"), weights)


def test_nothing_is_overwritten_and_nothing_is_left_after_an_error(photos: Store, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="there exists; exports are never overwritten"):
        export(photos, KEPT, tmp_path / "there", ExportSettings(format="npy"))
    shutil.copytree(photos.path, tmp_path / "store")
    damaged = open_store(tmp_path / "store")
    split = damaged.split("train")
    with split.path.open("r+b") as file:
        file.seek(int(split.pointers[split.rows(np.array([17]))[0]]) + 50)
        file.write(b"\0\0\0")
    for form in ("folder", *CONTAINERS):
        with pytest.raises(ValueError, match=r"sample 17 \(class 2/17 a.jpg\) .*corrupt.*convert"):
            export(damaged, KEPT, tmp_path / "out", ExportSettings(format=form))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["store", "there"]


def test_mistakes_are_named(photos: Store, tmp_path: Path) -> None:
    npy, out = ExportSettings(format="npy"), tmp_path / "out"
    for ids, message in (([], "no samples"), ([1, 1], "twice"), ([1, 99], "99 is not in split")):
        with pytest.raises(ValueError, match=message):
            export(photos, np.array(ids, dtype=np.int64), out, npy)
    with pytest.raises(ValueError, match="tfrecords"):
        ExportSettings(format="tfrecords")
    with pytest.raises(ValueError, match="label is 'name'; it must be one of class, id"):
        ExportSettings(format="npy", label="name")
    with pytest.raises(ValueError, match="links are for the format folder, not tfrecord"):
        ExportSettings(format="tfrecord", links=True)
    with pytest.raises(ValueError, match="shard_bytes is 0"):
        ExportSettings(format="tfrecord", shard_bytes=0)
    with pytest.raises(ValueError, match="shard_bytes is for tfrecord, webdataset, not recordio"):
        ExportSettings(format="recordio", shard_bytes=1000)


def test_a_source_that_is_no_image_folder_or_gone_cannot_be_listed(photos: Store, tmp_path: Path) -> None:
    store = convert(open_source(write_arrays(tmp_path / "a.npz")), tmp_path / "store", ConvertSettings())
    with pytest.raises(ValueError, match=r"made from an image folder.*--format folder"):
        export(store, np.arange(4), tmp_path / "out", ExportSettings(format="file_list"))
    shutil.copytree(photos.path, tmp_path / "moved")
    description = tmp_path / "moved/store.json"
    description.write_text(description.read_text().replace("source/train", "nowhere/train"))
    for settings_ in (ExportSettings(format="file_list"), ExportSettings(format="folder", links=True)):
        with pytest.raises(ValueError, match="from which the store was made, is gone"):
            export(open_store(tmp_path / "moved"), KEPT, tmp_path / "out", settings_)


def test_containers_that_do_not_fit_are_refused(photos: Store, tiny_store: Store, tmp_path: Path) -> None:
    tfrecord = ExportSettings(format="tfrecord")
    export(photos, np.arange(10), tmp_path / "ten", tfrecord)
    export(photos, np.arange(3), tmp_path / "three", tfrecord, containers=tmp_path / "ten")
    cases: list[tuple[Store, ExportSettings, str, str]] = [
        (photos, tfrecord, "ten", "lacks 3 of the 7 samples, the first 11"),
        (photos, ExportSettings(format="recordio"), "ten", "has the format 'tfrecord', not 'recordio'"),
        (photos, ExportSettings(format="npy"), "ten", "is for tfrecord, recordio, webdataset, not npy"),
        (photos, ExportSettings(format="tfrecord", label="id"), "ten", "have the class as label, not the id"),
        (tiny_store, tfrecord, "ten", "made of another store"),
        (photos, tfrecord, "three", "only links to containers"),
        (photos, tfrecord, "none", "does not exist"),
    ]
    for store, settings_, containers, message in cases:
        with pytest.raises(ValueError, match=message):
            export(store, KEPT, tmp_path / "out", settings_, containers=tmp_path / containers)
        assert not (tmp_path / "out").exists()
