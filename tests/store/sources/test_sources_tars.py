"""Tar archives read in place, against tarfile; ILSVRC2012's archives, against the image folder they were made of."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source, recognise_source, reopen_source
from prunekd.store.sources.tars import members, read_extent
from store.datasets import add_bytes, ilsvrc_archives, image_folder, tar_bytes
from support import require

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=("Cs", "Cc")), min_size=1, max_size=90
)


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(FORMATS[1:]),
    files=st.dictionaries(st.lists(NAMES, min_size=1, max_size=4).map("/".join), st.binary(max_size=1500), max_size=6),
    before=st.binary(max_size=700),
    after=st.binary(max_size=700),
)
def test_members_lie_where_tarfile_finds_them(
    tmp_path_factory: pytest.TempPathFactory, form: int, files: dict[str, bytes], before: bytes, after: bytes
) -> None:
    """Also inside a larger file, with long names and any letters."""
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    data = tar_bytes(files, form)
    path.write_bytes(before + data + after)
    found = {m.name: m for m in members(path, len(before), len(before) + len(data))}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        theirs = {info.name.removeprefix("./"): info for info in tar}
        assert set(found) == set(theirs)
        for name, member in found.items():
            assert (member.offset - len(before), member.size) == (theirs[name].offset_data, theirs[name].size)
            assert read_extent(path, member.offset, member.size) == tar.extractfile(theirs[name]).read()  # type: ignore[union-attr]


@pytest.mark.parametrize("form", FORMATS)
def test_members_that_must_not_be_unpacked_are_marked(tmp_path: Path, form: int) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        add_bytes(tar, "./good.jpg", b"1")
        add_bytes(tar, "/etc/passwd.jpg", b"22")
        add_bytes(tar, "a/../../up.jpg", b"333")
        for name, kind in (("sym.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE), ("pipe.jpg", tarfile.FIFOTYPE)):
            add_bytes(tar, name, b"", type=kind, linkname="../../etc/passwd" if kind != tarfile.FIFOTYPE else "")
        add_bytes(tar, "folder", b"", type=tarfile.DIRTYPE)
        add_bytes(tar, "a..b/c...jpg", b"4444")
    found = {member.name: member.problem for member in members(tmp_path / "a.tar")}
    assert [name for name, problem in found.items() if not problem] == ["good.jpg", "a..b/c...jpg"]
    assert "leads out" in found["/etc/passwd.jpg"]
    assert "leads out" in found["a/../../up.jpg"]
    assert "link" in found["sym.jpg"]
    assert "link" in found["hard.jpg"]
    assert "regular" in found["pipe.jpg"]
    assert "folder" not in found


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1), junk=st.binary(min_size=1, max_size=600), cut=st.booleans())
def test_damaged_archives_end_in_a_clear_error_or_in_members_within_the_file(
    tmp_path_factory: pytest.TempPathFactory, place: float, junk: bytes, cut: bool
) -> None:
    data = bytearray(tar_bytes({f"{k}" * 60 + "/" + "x" * 60: os.urandom(400) for k in range(5)}))
    at = int(place * len(data))
    data[at:] = b"" if cut else junk + data[at + len(junk) :]
    path = tmp_path_factory.mktemp("tar") / "damaged.tar"
    path.write_bytes(data)
    try:
        for member in members(path):
            assert 0 <= member.offset <= member.offset + member.size <= len(data)
    except ValueError as error:
        assert "damaged.tar" in str(error)  # noqa: PT017 - either outcome is right


def test_compressed_archives_and_other_files_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        add_bytes(tar, "a.jpg", b"1")
    with pytest.raises(ValueError, match=r"a\.tar holds no uncompressed tar"):
        list(members(tmp_path / "a.tar"))


@pytest.mark.parametrize("form", FORMATS)
def test_the_archives_give_the_store_of_the_unpacked_folder(tmp_path: Path, form: int) -> None:
    folder = image_folder(tmp_path / "folder", count=20)
    archives = ilsvrc_archives(folder, tmp_path / "archives", form)
    assert recognise_source(archives)[0] == "ilsvrc"
    unpacked = convert(open_source(folder), tmp_path / "unpacked", ConvertSettings())
    packed = convert(open_source(archives), tmp_path / "packed", ConvertSettings())
    assert packed.fingerprint == unpacked.fingerprint
    assert packed.classes == unpacked.classes
    for name in ("train", "val"):
        assert packed.split(name).keys() == unpacked.split(name).keys()
        assert np.array_equal(packed.split(name).labels, unpacked.split(name).labels)
        assert packed.split(name).path.read_bytes() == unpacked.split(name).path.read_bytes()
    again = reopen_source(packed.source)
    assert again.read("val", 3) == (folder / "val" / unpacked.split("val").keys()[3]).read_bytes()


def test_dangerous_members_are_quarantined_and_nothing_is_unpacked(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "folder", count=3, classes=1)
    good = next((folder / "train").rglob("*.JPEG")).read_bytes()
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        add_bytes(tar, "a.JPEG", b"an earlier one")
        add_bytes(tar, "a.JPEG", good)
        add_bytes(tar, "../../evil.JPEG", good)
        add_bytes(tar, "/absolute.JPEG", good)
        add_bytes(tar, "link.JPEG", b"", type=tarfile.SYMTYPE, linkname="a.JPEG")
        add_bytes(tar, "notes.txt", b"x")
        add_bytes(tar, ".hidden.JPEG", good)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/ILSVRC2012_img_train.tar").write_bytes(tar_bytes({"n1.tar": inner.getvalue()}))
    before = sorted(tmp_path.rglob("*"))
    store = convert(open_source(tmp_path / "in"), tmp_path / "store", ConvertSettings(max_quarantined=3))
    assert sorted(p for p in tmp_path.rglob("*") if "store" not in p.relative_to(tmp_path).parts) == before
    assert store.split("train").keys() == ["n1/a.JPEG"]
    reasons = {entry["key"]: entry["reason"] for entry in store.quarantined}
    assert set(reasons) == {"n1/../../evil.JPEG", "n1//absolute.JPEG", "n1/link.JPEG"}
    assert all("leads out" in reason or "link" in reason for reason in reasons.values())
    assert store.ignored == {".txt": 1, "hidden": 1, "replaced by a later member": 1}


def devkit(folder: Path, numbers: dict[str, int]) -> dict[str, bytes]:
    """The two files of the development kit that say the classes of the validation images."""
    buffer = io.BytesIO()
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(number, name, f"words of {name}") for name, number in numbers.items()], dtype=kind)
    require("scipy.io").savemat(buffer, {"synsets": synsets.reshape(-1, 1)}, do_compression=True)
    images = sorted((folder / "val").rglob("*.JPEG"), key=lambda file: file.name)
    truth = "".join(f"{numbers[file.parent.name]}\n" for file in images)
    return {"meta.mat": buffer.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth.encode()}


@pytest.mark.parametrize("form", ["csv", "blanks", "kaggle", "devkit", "devkit folder", "devkit archive"])
def test_validation_labels_are_read_from_every_file_that_says_them(tmp_path: Path, form: str) -> None:
    folder = image_folder(tmp_path / "folder")
    root = ilsvrc_archives(folder, tmp_path / "in")
    expected = {file.name: file.parent.name for file in (folder / "val").rglob("*.JPEG")}
    kit = devkit(folder, {"n01447764": 3, "n01448764": 1, "n01449764": 2})  # numbers in another order than the names
    if form != "csv":
        (root / "val_labels.csv").unlink()
    if form == "blanks":
        lines = [f"val/{Path(name).stem}\t{synset}\n" for name, synset in expected.items()]
        (root / "val_labels.txt").write_text("".join(lines))
    elif form == "kaggle":
        lines = [f"{Path(name).stem},{synset} 85 1 499 272 {synset} 3 4 5 6\n" for name, synset in expected.items()]
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(lines))
    elif form == "devkit archive":
        with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
            for name, data in kit.items():
                add_bytes(tar, f"ILSVRC2012_devkit_t12/data/{name}", data)
    elif form.startswith("devkit"):
        place = root / "ILSVRC2012_devkit_t12/data" if form == "devkit folder" else root
        place.mkdir(parents=True, exist_ok=True)
        for name, data in kit.items():
            (place / name).write_bytes(data)
    source = open_source(root)
    got = {
        key.split("/")[1]: source.classes[label]
        for key, label in zip(source.keys("val"), source.labels("val"), strict=True)
    }
    assert got == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_labels.csv": None}, "not its labels"),
        ({"val_labels.csv": b"ILSVRC2012_val_00000001.JPEG,n01449764\n"}, "say nothing of ILSVRC2012_val_0000000"),
        ({"val_labels.csv": b"ILSVRC2012_val_00000001.JPEG\n"}, "line 1"),
        ({"ILSVRC2012_img_train.tar": None}, "lacks ILSVRC2012_img_train"),
        ({"ILSVRC2012_img_train.tar": tar_bytes({"a.jpg": b"x"})}, "no archives CLASS.tar"),
        ({"ILSVRC2012_img_train.tar": tar_bytes({"../n1.tar": tar_bytes({})})}, r"'\.\./n1\.tar'"),
        ({"ILSVRC2012_img_train.tar": tar_bytes({"n1.tar": b"x" * 2000})}, "no uncompressed tar archive at byte 512"),
        ({"ILSVRC2012_img_train.tar": tar_bytes({"n1.tar": tar_bytes({"a.jpg": b"x"})})}, "n01449764.*lacks"),
        ({"ILSVRC2012_img_val.tar": tar_bytes({"a.txt": b"x"})}, "val.tar holds no images"),
    ],
)
def test_malformed_archives_and_labels_are_named(tmp_path: Path, change: dict[str, bytes | None], message: str) -> None:
    root = ilsvrc_archives(image_folder(tmp_path / "folder"), tmp_path / "in")
    for name, data in change.items():
        (root / name).unlink() if data is None else (root / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        open_source(root, "ilsvrc")


def test_a_damaged_development_kit_is_named(tmp_path: Path) -> None:
    require("scipy.io")
    root = ilsvrc_archives(image_folder(tmp_path / "folder"), tmp_path / "in")
    (root / "val_labels.csv").unlink()
    (root / "meta.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n")
    with pytest.raises(ValueError, match=r"meta\.mat"):
        open_source(root)
