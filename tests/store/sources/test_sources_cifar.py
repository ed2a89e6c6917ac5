"""CIFAR's files in all four layouts, against torchvision and each other; pickles that do more than hold values."""

import os
import pickle
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import CIFAR10, CIFAR100

from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source, recognise_source, reopen_source
from prunekd.store.sources.safe_pickle import Pixels, load_plain
from store.datasets import cifar_folder


@pytest.mark.parametrize("hundred", [False, True])
def test_both_versions_hold_the_same_samples(tmp_path: Path, hundred: bool) -> None:
    stores = []
    for python in (False, True):
        images = cifar_folder(tmp_path / f"{python}", hundred, python)
        assert recognise_source(tmp_path / f"{python}")[0] == "cifar"
        store = convert(open_source(tmp_path / f"{python}"), tmp_path / f"store{python}", ConvertSettings())
        stores.append(store)
        got = []
        for name in ("train", "val"):
            with store.split(name).payloads() as payloads:
                got += [payloads.read(row) for row in range(len(store.split(name)))]
        assert got == [image.tobytes() for image in images]
        assert store.classes == tuple(f"class{k}" for k in range(100 if hundred else 10))
        assert store.split("train").labels.tolist() == [0, 1, 2, 0] * (1 if hundred else 5)
    assert stores[0].fingerprint == stores[1].fingerprint
    again = pickle.loads(pickle.dumps(reopen_source(stores[1].source)))  # noqa: S301 - a worker process gets it so
    assert np.array_equal(again.read("val", 2), images[len(stores[1].split("train")) + 2])


@pytest.mark.parametrize("hundred", [False, True])
def test_torchvision_reads_the_same_from_the_python_version(
    tmp_path: Path, hundred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar_folder(tmp_path, hundred, python=True)
    kind: Any = CIFAR100 if hundred else CIFAR10
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    meta = next(tmp_path.rglob("*meta"))
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(meta.read_bytes(), usedforsecurity=False).hexdigest()})
    source = open_source(tmp_path)
    for split, train in (("train", True), ("val", False)):
        theirs = kind(str(tmp_path), train=train)
        assert np.array_equal([source.read(split, k) for k in range(len(theirs))], theirs.data)
        assert source.labels(split).tolist() == theirs.targets
    assert list(source.classes) == theirs.classes


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol_up_to_four_is_read(tmp_path: Path, protocol: int) -> None:
    images = cifar_folder(tmp_path, hundred=False, python=True, protocol=protocol)
    source = open_source(tmp_path / "cifar-10-batches-py")
    assert np.array_equal(source.read("train", 7), images[7])


class Shell:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._marker}",)


class Named:
    """Pickles to a call of any function, or to a state set on it."""

    def __init__(self, *reduced: Any) -> None:
        self._reduced = reduced

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_something_is_refused_before_it_does(tmp_path: Path, protocol: int) -> None:
    cifar_folder(tmp_path, hundred=False, python=True)
    batch = tmp_path / "cifar-10-batches-py/data_batch_2"
    marker = tmp_path / "marker"
    batch.write_bytes(pickle.dumps({"data": Shell(marker), "labels": [0]}, protocol=protocol))
    with pytest.raises(ValueError, match=r"data_batch_2 is not read: it names (posix|nt)\.system"):
        open_source(tmp_path)
    assert not marker.exists()
    pickle.loads(batch.read_bytes())  # noqa: S301 - the pickle would have done it
    assert marker.exists()


@pytest.mark.parametrize(
    "value",
    [
        Named(eval, ("1",)), Named(getattr, ("", "join")), np.float64(1), np.random.default_rng(0), Path("x"),
        Named(np.frombuffer, (b"1", "u1")), np.ma.array([1]), slice(1), {1, 2}.__class__, len,
    ],
)  # fmt: skip
def test_only_the_names_that_arrays_need_pass(tmp_path: Path, value: object) -> None:
    (tmp_path / "p").write_bytes(pickle.dumps(value, protocol=2))
    with pytest.raises(ValueError, match="p is not read: it names"):
        load_plain(tmp_path / "p")


def test_stand_ins_cannot_be_changed_by_a_pickle(tmp_path: Path) -> None:
    for module, name in (("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")):
        for state in (b"}X\x01\x00\x00\x00aK\x01s", b"N}X\x01\x00\x00\x00aK\x01s\x86"):  # a dict; (None, slots)
            (tmp_path / "p").write_bytes(b"\x80\x02c" + f"{module}\n{name}\n".encode() + state + b"b.")
            with pytest.raises(ValueError, match="p is not read"):
                load_plain(tmp_path / "p")


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64), np.array([{}, 1], object), np.zeros((3, 2), np.uint8).T],
)
def test_arrays_of_another_type_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    (tmp_path / "p").write_bytes(pickle.dumps(array, protocol=2))
    with pytest.raises(ValueError, match="must be uint8"):
        load_plain(tmp_path / "p").array(tmp_path / "p")


@pytest.mark.parametrize("shape", [(2, 3), (7,), (1 << 40, 1 << 40), (0, 3), (-1, -6), [6], (6.0,), None])
def test_shapes_that_do_not_fit_are_refused_before_memory_is_taken(tmp_path: Path, shape: Any) -> None:
    pixels = Pixels()
    dtype = load_plain_dtype(tmp_path)
    pixels.__setstate__((1, shape, dtype, False, b"123456"))
    if shape == (2, 3):
        assert pixels.array(tmp_path).tolist() == [[49, 50, 51], [52, 53, 54]]
    else:
        with pytest.raises(ValueError, match=r"shape|uint8"):
            pixels.array(tmp_path)


def load_plain_dtype(tmp_path: Path) -> Any:
    (tmp_path / "dtype").write_bytes(pickle.dumps(np.dtype("u1"), protocol=2))
    return load_plain(tmp_path / "dtype")


@settings(max_examples=80, deadline=None)
@given(place=st.floats(0, 1), junk=st.binary(max_size=20))
def test_damaged_pickles_end_in_a_clear_error_or_plain_values(
    tmp_path_factory: pytest.TempPathFactory, place: float, junk: bytes
) -> None:
    data = pickle.dumps({"data": np.zeros((2, 4), np.uint8), "labels": [0, 1]}, protocol=2)
    at = int(place * len(data))
    path = tmp_path_factory.mktemp("p") / "batch"
    path.write_bytes(data[:at] + junk + (data[at + len(junk) :] if junk else b""))
    try:
        values = load_plain(path)
        if isinstance(values, dict) and isinstance(values.get("data"), Pixels):
            assert values["data"].array(path).dtype == np.uint8
    except ValueError as error:
        assert "batch" in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("data_batch_3.bin", None, r"data_batch_3\.bin is missing"),
        ("data_batch_3.bin", b"x" * 3072, "not a multiple of 3073"),
        ("data_batch_3.bin", b"", "not a multiple of 3073"),
        ("data_batch_3.bin", b"\x0b" * 3073, "from 0 to 9"),
        ("batches.meta.txt", b"a\na\n", "different names"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, data: bytes | None, message: str) -> None:
    cifar_folder(tmp_path, hundred=False, python=False)
    path = tmp_path / "cifar-10-batches-bin" / name
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([1], "holds a list"),
        ({"labels": [0]}, "lacks the list"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "1 labels and pixels"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": ["x"]}, "labels and pixels"),
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [1 << 200]}, "from 0 to 9"),
    ],
)
def test_damaged_batches_are_named(tmp_path: Path, entries: object, message: str) -> None:
    cifar_folder(tmp_path, hundred=False, python=True)
    (tmp_path / "cifar-10-batches-py/data_batch_4").write_bytes(pickle.dumps(entries, protocol=2))
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path, "cifar")
