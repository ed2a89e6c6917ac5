"""Conversion: what goes in comes out, what cannot is listed, and nothing is half done."""

import errno
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from prunekd.cli import main
from prunekd.store import open_store
from prunekd.store.format.beton import MODE_JPEG, MODE_RAW
from prunekd.store.format.beton_writer import BetonWriter
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from support import write_arrays


def picture(size: tuple[int, int] = (40, 30), seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def folder(root: Path, count: int = 12, classes: int = 3) -> Path:
    for split in ("train", "val"):
        for k in range(count):
            path = root / split / f"class{k % classes}" / f"{k:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture((30 + k % 50, 25 + k % 30), seed=k).save(path, quality=90)
    return root


def test_jpeg_files_pass_through_byte_for_byte_in_canonical_order(tmp_path: Path) -> None:
    source = folder(tmp_path / "source")
    store = convert(open_source(source), tmp_path / "store", ConvertSettings())
    assert store.classes == ("class0", "class1", "class2")
    for name in ("train", "val"):
        split = store.split(name)
        files = sorted((source / name).rglob("*.jpg"))
        assert [f"{f.parent.name}/{f.name}" in key for f, key in zip(files, split.keys(), strict=True)] == [True] * 12
        assert split.ids.tolist() == list(range(12))
        with split.payloads() as payloads:
            for row, file in enumerate(files):
                data = file.read_bytes()
                assert payloads.read(row) == data
                assert split.crc32[row] == crc32(data)
                assert split.labels[row] == int(file.parent.name[-1])
                assert (split.widths[row], split.heights[row]) == Image.open(file).size
        assert (split.modes == MODE_JPEG).all()


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)), min_size=1, max_size=6), seed=st.integers(0, 99)
)
def test_small_images_survive_any_size_exactly(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int]], seed: int
) -> None:
    root = tmp_path_factory.mktemp("sizes")
    rng = np.random.default_rng(seed)
    originals = [rng.integers(0, 256, size=(h, w, 3), dtype=np.uint8) for w, h in sizes]
    for k, pixels in enumerate(originals):
        (root / "source/train/a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"source/train/a/{k}.png")
    split = convert(open_source(root / "source"), root / "store", ConvertSettings()).split("train")
    assert (split.modes == MODE_RAW).all()
    with split.payloads() as payloads:
        for row, pixels in enumerate(originals):
            assert payloads.read(row) == pixels.tobytes()


def odd_images() -> dict[str, tuple[bytes, bool]]:
    """Name -> (file, whether it is stored losslessly)."""

    def encode(image: Image.Image, kind: str, **more: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **more)
        return buffer.getvalue()

    rotated = Image.Exif()
    rotated[0x0112] = 6
    small = picture((50, 40))
    deep = Image.fromarray((np.arange(2000, dtype=np.uint16) * 32).reshape(40, 50))
    return {
        "exif.jpg": (encode(small, "JPEG", quality=95, exif=rotated), False),
        "cmyk.jpg": (encode(small.convert("CMYK"), "JPEG", quality=95), False),
        "grey.jpg": (encode(small.convert("L"), "JPEG", quality=95), True),
        "alpha.png": (encode(small.convert("RGBA"), "PNG"), True),
        "palette.png": (encode(small.convert("P"), "PNG"), True),
        "grey.png": (encode(small.convert("L"), "PNG"), True),
        "deep.png": (encode(deep, "PNG"), True),
        "animated.webp": (
            encode(small, "WEBP", lossless=True, save_all=True, append_images=[picture((50, 40), 2)]),
            True,
        ),
        "web.webp": (encode(small, "WEBP", lossless=True), True),
        "gif_named.jpg": (encode(small, "GIF"), True),
    }


@pytest.mark.parametrize("name", odd_images())
def test_odd_images_come_out_as_pil_transposed_rgb(tmp_path: Path, name: str) -> None:
    data, lossless = odd_images()[name]
    (tmp_path / "source/train/a").mkdir(parents=True)
    (tmp_path / "source/train/a" / name).write_bytes(data)
    store = convert(open_source(tmp_path / "source"), tmp_path / "store", ConvertSettings())
    split = store.split("train")
    assert not store.quarantined
    with split.payloads() as payloads:
        payload = payloads.read(0)
    original = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if name == "deep.png":  # Pillow's own conversion clips 16-bit samples, which is not what anyone means
        expected = np.repeat((np.asarray(original) // 256).astype(np.uint8)[..., None], 3, axis=2)
    else:
        expected = np.asarray(original.convert("RGB"))
    if split.modes[0] == MODE_RAW:
        got = np.frombuffer(payload, np.uint8).reshape(split.heights[0], split.widths[0], 3)
    else:
        stored = Image.open(io.BytesIO(payload))
        assert stored.getexif().get(0x0112, 1) == 1
        got = np.asarray(stored.convert("RGB"))
    assert got.shape == expected.shape
    difference = np.abs(got.astype(int) - expected.astype(int))
    assert difference.max() <= (1 if lossless else 24)
    assert difference.mean() <= (1 if lossless else 4)


def test_unreadable_inputs_are_quarantined_with_reasons_and_ids_keep_their_place(tmp_path: Path) -> None:
    source = folder(tmp_path / "source")
    good = (source / "train/class0/000.jpg").read_bytes()
    bad = {
        "class0/003.jpg": good[: len(good) // 2],
        "class1/001.jpg": b"",
        "class1/004.jpg": b"plainly not an image",
        "class2/005.jpg": good[:200] + os.urandom(150) + good[350:],
    }
    for name, data in bad.items():
        (source / "train" / name).write_bytes(data)
    words = ["convert", str(source), "--max-quarantined", "34%"]
    result = CliRunner().invoke(main, [*words, str(tmp_path / "store"), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    listed = {item["key"].split("train/")[-1]: item["reason"] for item in told["quarantined"]}
    assert set(listed) == set(bad)
    assert all(listed.values())
    split = open_store(tmp_path / "store").split("train")
    assert len(split) == 8
    all_ids = {f"{f.parent.name}/{f.name}": i for i, f in enumerate(sorted((source / "train").rglob("*.jpg")))}
    assert split.ids.tolist() == sorted(i for name, i in all_ids.items() if name not in bad)
    plain = CliRunner().invoke(main, [*words, str(tmp_path / "again")])
    assert "quarantined: 4 unreadable" in plain.stdout


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "source/train/a").mkdir(parents=True)
    (tmp_path / "source/train/a/x.jpg").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="train"):
        convert(open_source(tmp_path / "source"), tmp_path / "store", ConvertSettings())
    assert not (tmp_path / "store").exists()


def test_larger_images_are_shrunk_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "source/train/a").mkdir(parents=True)
    picture((300, 150)).save(tmp_path / "source/train/a/x.jpg")
    split = convert(open_source(tmp_path / "source"), tmp_path / "store", ConvertSettings(max_side=100)).split("train")
    assert (split.widths[0], split.heights[0]) == (100, 50)


def test_the_file_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path / "source", count=40))
    one = convert(source, tmp_path / "one", ConvertSettings(workers=1, chunk_size=7))
    many = convert(source, tmp_path / "many", ConvertSettings(workers=5, chunk_size=16))
    assert one.fingerprint == many.fingerprint
    for name in ("train.beton", "val.beton"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_the_fingerprint_tells_labels_keys_and_pixels_apart(tmp_path: Path) -> None:
    source = folder(tmp_path / "source")
    first = convert(open_source(source), tmp_path / "a", ConvertSettings()).fingerprint
    (source / "train/class0/000.jpg").rename(source / "train/class0/0000.jpg")
    renamed = convert(open_source(source), tmp_path / "b", ConvertSettings()).fingerprint
    picture(seed=77).save(source / "train/class0/0000.jpg")
    repainted = convert(open_source(source), tmp_path / "c", ConvertSettings()).fingerprint
    assert len({first, renamed, repainted}) == 3


SLOW_CONVERT = """
import sys, time
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
def slowly(done, total, quarantined):
    print(done, flush=True)
    time.sleep(0.02)
convert(open_source(sys.argv[1]), sys.argv[2], ConvertSettings(chunk_size=8), slowly)
"""


def test_a_killed_conversion_resumes_to_the_same_bytes(tmp_path: Path, told: list[str]) -> None:
    source = folder(tmp_path / "source", count=120)
    whole = convert(open_source(source), tmp_path / "whole", ConvertSettings(chunk_size=8))
    command = [sys.executable, "-c", SLOW_CONVERT, str(source), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 60:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "store").exists()
    resumed = convert(open_source(source), tmp_path / "store", ConvertSettings(chunk_size=8))
    assert told
    assert resumed.fingerprint == whole.fingerprint
    for name in ("train.beton", "val.beton"):
        assert (tmp_path / "store" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "store", "whole"]


def test_a_full_disk_is_told_and_the_conversion_goes_on_later(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", count=20)
    limit = (2 << 20) + 6000  # the first page starts at 2 MiB; a few images fit behind it

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = ["convert", str(source), str(tmp_path / "store")]
    script = (
        "import sys; from prunekd.store.jobs.convert import *; from prunekd.store.sources import open_source\n"
        "try:\n convert(open_source(sys.argv[2]), sys.argv[3], ConvertSettings(page_size=1 << 21))\n"
        "except OSError as error:\n sys.exit(f'OSError: {error}')\n"
    )
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=full)
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert "store" in done.stderr
    assert not (tmp_path / "store").exists()
    store = convert(open_source(source), tmp_path / "store", ConvertSettings(page_size=1 << 21))
    assert len(store.split("train")) == 20


def test_a_full_disk_is_told_with_what_is_needed_and_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_arrays(tmp_path / "a.npz", train=40))
    append, written = BetonWriter.append, []

    def full(self: BetonWriter, payload: bytes) -> int:
        if len(written) == 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(len(payload))
        return append(self, payload)

    monkeypatch.setattr(BetonWriter, "append", full)
    settings = ConvertSettings(chunk_size=5)
    with pytest.raises(
        OSError, match=r"cannot write .*/train.beton: No space left on device \(about .* free\)"
    ) as caught:
        convert(source, tmp_path / "store", settings)
    needed = re.search(r"about ([0-9.]+) KiB are needed, [0-9.]+ .?i?B are free", str(caught.value))
    assert needed is not None
    left = 30 * written[0] / 1024
    assert left <= float(needed[1]) + 0.1 <= 1.2 * left
    monkeypatch.undo()
    assert len(convert(source, tmp_path / "store", settings).split("train")) == 40


def test_an_existing_store_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    source = open_source(write_arrays(tmp_path / "a.npz"))
    convert(source, tmp_path / "store", ConvertSettings())
    with pytest.raises(ValueError, match="overwrite"):
        convert(source, tmp_path / "store", ConvertSettings())
    again = convert(source, tmp_path / "store", ConvertSettings(overwrite=True))
    assert len(again.split("train")) == 96


@pytest.mark.parametrize("damage", ["header", "unfinished", "truncated", "index", "json", "missing"])
def test_damaged_stores_are_refused_with_the_file_named(tmp_path: Path, damage: str) -> None:
    convert(open_source(write_arrays(tmp_path / "a.npz")), tmp_path / "store", ConvertSettings())
    beton = tmp_path / "store/train.beton"
    data = bytearray(beton.read_bytes())
    named = "train"
    if damage == "header":
        data[0:2] = b"\x09\x00"
    elif damage == "unfinished":
        data[16:24] = bytes(8)
    elif damage == "truncated":
        data = data[: len(data) - 5000]
    elif damage == "index":
        (tmp_path / "store/train.index.parquet").write_bytes(b"nonsense")
    elif damage == "json":
        (tmp_path / "store/store.json").write_text("{")
        named = "store.json"
    else:
        (tmp_path / "store/store.json").unlink()
        named = "store"
    beton.write_bytes(data)
    started = time.time()
    with pytest.raises(ValueError, match=named):
        open_store(tmp_path / "store")
    assert time.time() - started < 20


def test_a_class_tree_gets_a_held_out_validation_split(tmp_path: Path) -> None:
    for k in range(30):
        path = tmp_path / "tree" / f"class{k % 3}" / f"{k:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed=k).save(path)
    whole = convert(open_source(tmp_path / "tree"), tmp_path / "whole", ConvertSettings())
    assert set(whole.splits) == {"train"}
    held = convert(open_source(tmp_path / "tree", val_fraction=0.2), tmp_path / "held", ConvertSettings())
    assert len(held.split("train")) == 24
    assert np.bincount(held.split("val").labels).tolist() == [2, 2, 2]
    assert not set(held.split("train").keys()) & set(held.split("val").keys())


def test_wrong_sources_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", train_images=np.zeros((3, 4, 4, 3), np.uint8), train_labels=np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"bad\.npz"):
        open_source(tmp_path / "bad.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        open_source(tmp_path / "empty")
    with pytest.raises(ValueError, match="did you mean 'arrays'"):
        open_source(tmp_path / "bad.npz", kind="array")
