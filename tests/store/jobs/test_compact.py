"""Compacted stores: rank order, the same bytes, prefixes, resumption, and what still fits them."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunekd.input import open_reader
from prunekd.input.plan import train_plan
from prunekd.input.views import ViewSettings
from prunekd.pruning import select
from prunekd.pruning.parquet import made_for
from prunekd.pruning.scores import Scores
from prunekd.store import Store, open_store
from prunekd.store.format.beton import read_alloc_table, read_header, read_metadata
from prunekd.store.format.beton_writer import BetonWriter
from prunekd.store.jobs import compact as compact_module
from prunekd.store.jobs.compact import compact, place
from prunekd.store.jobs.convert import convert
from prunekd.store.sources import open_source
from support import require, write_arrays

PAGE = 1 << 21
VIEW = ViewSettings(kind="random_resized_crop", size=8)


def some_ids(store: Store, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(store.split("train").ids)[:count]


def files(store: Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.path.iterdir())}


def payloads(store: Store, ids: np.ndarray) -> list[bytes]:
    split = store.split("train")
    with split.payloads() as file:
        return [file.read(int(row)) for row in split.rows(ids)]


def test_samples_lie_in_rank_order_and_stay_what_they_were(tiny_store: Store, tmp_path: Path) -> None:
    ids = some_ids(tiny_store, 60)
    made = compact(tiny_store, ids, tmp_path / "made", ranking={"policy": "mine"})
    parent, split = tiny_store.split("train"), made.split("train")
    rows = parent.rows(ids)
    assert split.ids.tolist() == ids.tolist()
    assert split.keys() == parent.keys(rows)
    for name in ("labels", "sizes", "modes", "widths", "heights", "crc32"):
        assert getattr(split, name).tolist() == getattr(parent, name)[rows].tolist(), name
    assert payloads(made, ids) == payloads(tiny_store, ids)
    assert [zlib.crc32(payload) for payload in payloads(made, ids)] == split.crc32.tolist()
    metadata, table = read_metadata(read_header(split.path)), read_alloc_table(read_header(split.path))
    assert metadata["id"].tolist() == ids.tolist()
    assert metadata["label"].tolist() == split.labels.tolist()
    assert table["ptr"].tolist() == split.pointers.tolist() == metadata["image"]["data_ptr"].tolist()
    assert table["size"].tolist() == split.sizes.tolist()
    assert made.compacted is not None
    assert made.compacted["ranking"] == {"policy": "mine"}
    assert made.counts["train"] == {"samples": 60, "bytes": split.payload_bytes}
    assert made.fingerprint != tiny_store.fingerprint
    assert made.split("val").path.read_bytes() == tiny_store.split("val").path.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_every_smaller_ratio_is_a_prefix_of_the_file(tiny_store: Store, tmp_path: Path) -> None:
    """By extents: no byte of a larger subset lies before the end of a smaller one."""
    subset = select(tiny_store, "random", 1.0, 3)
    split = compact(tiny_store, subset.ids, tmp_path / "made").split("train")
    for keep in (0.05, 0.2, 0.5, 0.9):
        kept = split.rows(select(tiny_store, "random", keep, 3).ids)
        end = (split.pointers + split.sizes)[kept].max()
        assert end <= np.delete(split.pointers, kept).min()
        assert end - split.pointers.min() == split.sizes[kept].sum()  # 96 small images fill no page


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(PAGE // 3, PAGE) | st.integers(1, 3000), min_size=1, max_size=12))
def test_places_are_those_the_writer_would_choose(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    with BetonWriter(tmp_path_factory.mktemp("place") / "x", capacity=len(sizes), page_size=PAGE) as writer:
        expected = [writer.append(bytes(size)) for size in sizes]
    assert place(np.array(sizes), PAGE).tolist() == expected


class Stop(Exception):
    """Ends a run from within."""


def test_a_run_that_was_stopped_goes_on_and_ends_the_same(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr(compact_module, "WINDOW", 7 * 432)  # seven images
    ids = some_ids(tiny_store, 60)
    whole = compact(tiny_store, ids, tmp_path / "whole")

    def stop(done: int, total: int, size: int) -> None:
        assert (total, size) == (60, 432 * done)
        if done >= 30:
            raise Stop

    with pytest.raises(Stop):
        compact(tiny_store, ids, tmp_path / "late", progress=stop)
    with pytest.raises(ValueError, match="interrupted"):
        open_store(tmp_path / "late")
    copied: list[int] = []
    late = compact(
        tiny_store,
        ids,
        tmp_path / "late",
        progress=lambda done, total, size: copied.append(done),
    )
    assert copied == [35, 42, 49, 56, 60]
    assert re.match("resuming.* 35 of 60", told[0])
    assert {**files(late), "store.json": b""} == {**files(whole), "store.json": b""}
    assert late.fingerprint == whole.fingerprint
    with pytest.raises(Stop):
        compact(tiny_store, ids, tmp_path / "other", progress=stop)
    other = compact(tiny_store, ids[::-1], tmp_path / "other")
    assert "starting over" in told[-1]
    assert other.split("train").ids.tolist() == ids[::-1].tolist()


def test_a_killed_run_goes_on(tiny_store: Store, tmp_path: Path, told: list[str]) -> None:
    script = f"""
import os, signal, numpy as np
from prunekd.store.jobs import compact
from prunekd.store import open_store
compact.WINDOW = 3000
def kill(done, total, size):
    if done > 20:
        os.kill(os.getpid(), signal.SIGKILL)
compact.compact(open_store({str(tiny_store.path)!r}), np.arange(50)[::-1], {str(tmp_path / "made")!r}, progress=kill)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    ids = np.arange(50)[::-1]
    made = compact(tiny_store, ids, tmp_path / "made")
    assert re.match("resuming.* 24 of 50", told[0])
    assert payloads(made, ids) == payloads(tiny_store, ids)


@pytest.mark.parametrize("trouble", ["another file system", "nothing moves", "in small steps"])
def test_the_copy_is_right_whatever_copy_file_range_does(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, told: list[str]
) -> None:
    real = os.copy_file_range

    def fake(source: int, target: int, count: int, at: int, to: int) -> int:
        if trouble == "another file system":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return 0 if trouble == "nothing moves" else real(source, target, min(count, 100), at, to)

    monkeypatch.setattr(os, "copy_file_range", fake)
    ids = some_ids(tiny_store, 40)
    made = compact(tiny_store, ids, tmp_path / "made")
    assert payloads(made, ids) == payloads(tiny_store, ids)
    assert any("reading and writing" in line for line in told) == (trouble == "another file system")


def test_other_splits_are_links_or_else_copies(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = compact(tiny_store, some_ids(tiny_store, 9), tmp_path / "linked")
    assert os.path.samefile(linked.split("val").path, tiny_store.split("val").path)

    def no_link(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    copied = compact(tiny_store, some_ids(tiny_store, 9), tmp_path / "copied")
    assert not os.path.samefile(copied.split("val").path, tiny_store.split("val").path)
    assert {**files(copied), "store.json": b""} == {**files(linked), "store.json": b""}


def test_a_full_disk_is_named_with_the_remedy(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match=r"train\.beton: No space.*make room"):
        compact(tiny_store, some_ids(tiny_store, 9), tmp_path / "made")


def test_a_parent_whose_storage_fails_is_named_and_not_the_copy(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> int:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "copy_file_range", gone)
    monkeypatch.setattr(os, "pread", gone)
    source = tiny_store.split("train").path
    with pytest.raises(OSError, match=rf"cannot read {source}: Stale file handle; what is copied so far is kept"):
        compact(tiny_store, some_ids(tiny_store, 9), tmp_path / "made")
    monkeypatch.undo()
    assert len(compact(tiny_store, some_ids(tiny_store, 9), tmp_path / "made").split("train")) == 9


def test_a_disk_without_room_is_noticed_before_anything_is_copied(
    tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9 * 432 - 1))
    assert len(compact(tiny_store, some_ids(tiny_store, 8), tmp_path / "small").split("train")) == 8
    with pytest.raises(OSError, match=r"still to be copied.*--keep"):
        compact(tiny_store, some_ids(tiny_store, 9), tmp_path / "made")
    assert not list(tmp_path.glob(".made.partial/store/*"))


@pytest.mark.parametrize(
    ("ids", "message"),
    [([], "at least one"), ([[1, 2]], "shape"), ([3, 4, 3], "id 3 is to be kept twice"), ([3, 400], "id 400 is not")],
)
def test_ids_that_make_no_store_are_refused(tiny_store: Store, tmp_path: Path, ids: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compact(tiny_store, np.array(ids, np.int64), tmp_path / "made")


def test_targets_that_are_there_are_refused_or_replaced(tiny_store: Store, tmp_path: Path) -> None:
    compact(tiny_store, np.arange(5), tmp_path / "made")
    with pytest.raises(ValueError, match="--overwrite"):
        compact(tiny_store, np.arange(6), tmp_path / "made")
    assert len(compact(tiny_store, np.arange(6), tmp_path / "made", overwrite=True).split("train")) == 6
    with pytest.raises(ValueError, match="onto itself"):
        compact(tiny_store, np.arange(6), tiny_store.path, overwrite=True)


def test_an_index_that_is_not_what_was_converted_is_refused(tmp_path: Path) -> None:
    store = convert(open_source(write_arrays(tmp_path / "a.npz", train=40, val=8)), tmp_path / "store")
    path = store.split("val").index_path
    table = pq.read_table(path)
    keys = pa.array(["stranger", *table["key"].to_pylist()[1:]])
    pq.write_table(table.set_column(table.schema.get_field_index("key"), "key", keys), path)
    with pytest.raises(ValueError, match="fingerprints differ"):
        compact(store, np.arange(5), tmp_path / "made")


def test_what_was_made_for_the_parent_fits_the_samples_that_are_left(tiny_store: Store, tmp_path: Path) -> None:
    half, quarter = (select(tiny_store, "random", keep, 5) for keep in (0.5, 0.25))
    made = compact(tiny_store, half.ids, tmp_path / "half")
    again = compact(made, quarter.ids, tmp_path / "quarter")
    assert again.lineage == (made.fingerprint, tiny_store.fingerprint)
    for store in (made, again):
        half.check(store)
        quarter.check(store)
        assert store.split("train").ids[store.split("train").rows(quarter.ids)].tolist() == quarter.ids.tolist()
    with pytest.raises(ValueError, match=r"24 of 48 are not\); a compacted store"):
        again.split("train").rows(half.ids)
    split = tiny_store.split("train")
    values = np.random.default_rng(0).normal(size=len(split)).astype(np.float32)
    scores = Scores(
        ids=split.ids,
        labels=split.labels,
        columns={"el2n": values},
        definitions={"el2n": "el2n@1"},
        hard_ends={"el2n": "high"},
        class_std=np.ones(4),
        provenance=made_for(tiny_store, "train"),
    )
    hardest = select(made, "hardest", 0.25, scores=scores, score="el2n")
    expected = half.ids[np.argsort(-values[half.ids])][:12]
    assert hardest.ids.tolist() == expected.tolist()
    with pytest.raises(ValueError, match="was made for"):
        hardest.check(tiny_store)  # what was chosen from a part is no choice from the whole
    stranger = convert(open_source(write_arrays(tmp_path / "o.npz", seed=1)), tmp_path / "stranger")
    with pytest.raises(ValueError, match="was made for"):
        select(stranger, "random", 0.5).check(made)


@pytest.mark.parametrize("reader", ["native", "torch", "ffcv", "dali"])
def test_an_epoch_of_a_subset_is_the_same_from_the_compacted_store(
    tiny_store: Store, tmp_path: Path, reader: str
) -> None:
    if reader in ("ffcv", "dali"):
        require({"ffcv": "ffcv", "dali": "nvidia.dali"}[reader])
    half, quarter = (select(tiny_store, "random", keep, 5) for keep in (0.5, 0.25))
    made = compact(tiny_store, half.ids, tmp_path / "half")

    def epoch(store: Store) -> list[tuple[Any, ...]]:
        with open_reader(reader, store, "train", workers=1) as opened:
            split = store.split("train")
            plan = train_plan(split, ids=quarter.ids, seed=1, epoch=2, batch_size=8, view=VIEW)
            return [(b.ids.tolist(), b.labels.tolist(), b.images.clone()) for b in opened.epoch(plan)]

    seen, expected = epoch(made), epoch(tiny_store)
    assert len(seen) == len(expected) == 3
    for (ids, labels, images), (its_ids, its_labels, its_images) in zip(seen, expected, strict=True):
        assert (ids, labels) == (its_ids, its_labels)
        assert images.equal(its_images)


@pytest.mark.ffcv
def test_ffcv_itself_reads_a_compacted_store(tiny_store: Store, tmp_path: Path) -> None:
    require("ffcv")
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    ids = some_ids(tiny_store, 50)
    made = compact(tiny_store, ids, tmp_path / "made")
    loader = Loader(
        str(made.split("train").path),
        batch_size=10,
        num_workers=1,
        order=OrderOption.SEQUENTIAL,
        pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder(), ToTensor()], "id": [IntDecoder()]},
    )
    pixels, labels, seen = [], [], []
    for image, label, number in loader:
        pixels += [one.tobytes() for one in image]
        labels += label.flatten().tolist()
        seen += number.flatten().tolist()
    assert seen == ids.tolist()
    assert pixels == payloads(tiny_store, ids)
    assert labels == made.split("train").labels.tolist()
