"""Small datasets in every layout that a source reads, made from one image folder."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def photographs(count: int, classes: int = 3, seed: int = 0) -> list[tuple[str, bytes]]:
    """(class, JPEG) of small smooth images, classes in turn."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        coarse = rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((30 + k % 50, 25 + k % 30), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        found.append((f"n0144{9 - k % classes}764", buffer.getvalue()))
    return found


def image_folder(root: Path, count: int = 12, classes: int = 3) -> Path:
    """Names as ILSVRC2012's: `train/SYNSET/SYNSET_NUMBER.JPEG`, `val/SYNSET/ILSVRC2012_val_*.JPEG`."""
    for split, seed in (("train", 0), ("val", 1)):
        for k, (synset, data) in enumerate(photographs(count, classes, seed), start=1):
            # numbers of unequal length, whose order as text is not that as numbers
            name = f"{synset}_{k * k}.JPEG" if split == "train" else f"ILSVRC2012_val_{k:08d}.JPEG"
            path = root / split / synset / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def add_bytes(tar: tarfile.TarFile, name: str, data: bytes, **header: object) -> None:
    """Append a member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in header.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def tar_bytes(files: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar archive of these files in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in files.items():
            add_bytes(tar, name, data)
    return buffer.getvalue()


def ilsvrc_archives(folder: Path, target: Path, form: int = tarfile.GNU_FORMAT) -> Path:
    """The archives of ILSVRC2012 for an image folder, members in no order, and a table of the validation labels."""
    target.mkdir(parents=True, exist_ok=True)
    outer = {}
    for synset in sorted((folder / "train").iterdir(), reverse=True):
        files = {file.name: file.read_bytes() for file in sorted(synset.iterdir(), key=lambda file: file.name[::-1])}
        outer[f"{synset.name}.tar"] = tar_bytes(files, form)
    (target / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(outer, form))
    images = sorted((folder / "val").rglob("*.JPEG"), key=lambda file: file.name)
    inner = {file.name: file.read_bytes() for file in images}
    (target / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes(inner, form))
    table = "".join(f"{file.name},{file.parent.name}\n" for file in images)
    (target / "val_labels.csv").write_text(table)
    return target


def webdataset_shards(folder: Path, target: Path, shards: int = 3, label: str = "number", shuffle: int = 0) -> Path:
    """Shards of an image folder: `CLASS/FILE.jpg` with `.cls` (a number or a name) or `.json`, shuffled."""
    target.mkdir(parents=True, exist_ok=True)
    classes = sorted(path.name for path in (folder / "train").iterdir())
    for split in ("train", "val"):
        files = sorted((folder / split).rglob("*.JPEG"))
        order = np.random.default_rng(shuffle).permutation(len(files))
        for shard, part in enumerate(np.array_split(order, shards)):
            inner = {}
            for k in part:
                file, name = files[k], files[k].parent.name
                stem = f"{name}/{file.stem}"
                number = classes.index(name)
                said = {"number": f"{number}\n", "name": name, "json": json.dumps({"label": number, "size": [1, 2]})}
                inner[f"{stem}.{'json' if label == 'json' else 'cls'}"] = said[label].encode()
                inner[f"{stem}.JPEG"] = file.read_bytes()
            (target / f"photos-{split}-{shard:04d}.tar").write_bytes(tar_bytes(inner))
    return target


def hugging_face(folder: Path, target: Path, files: int = 2, group: int = 3, metadata: bool = True) -> Path:
    """Parquet files of an image folder as the `datasets` library writes them."""
    (target / "data").mkdir(parents=True)
    classes = sorted(path.name for path in (folder / "train").iterdir())
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})} if metadata else None,
    )
    for split, name in (("train", "train"), ("val", "validation")):
        images = sorted((folder / split).rglob("*.JPEG"))
        for number, part in enumerate(np.array_split(np.arange(len(images)), files)):
            rows = [
                {
                    "image": {"bytes": images[k].read_bytes(), "path": f"{images[k].parent.name}/{images[k].name}"},
                    "label": classes.index(images[k].parent.name),
                }
                for k in part
            ]
            path = target / "data" / f"{name}-{number:05d}-of-{files:05d}.parquet"
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=group)
    return target


def cifar_folder(target: Path, hundred: bool, python: bool, count: int = 4, protocol: int = 2) -> np.ndarray:
    """CIFAR's files with `count` samples per batch; returns all images, uint8 (n, 32, 32, 3), train before val."""
    rng = np.random.default_rng(0)
    batches = ["train", "test"] if hundred else [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    names = [f"class{k}" for k in range(100 if hundred else 10)]
    kind = ("binary", "python") if hundred else ("bin", "py")
    folder = target / f"cifar-{'100' if hundred else '10-batches'}-{kind[python]}"
    folder.mkdir(parents=True)
    images = []
    for batch in batches:
        pixels = rng.integers(0, 256, size=(count, 3072), dtype=np.uint8)
        images.append(pixels)
        fine, coarse = np.arange(count) % 3, np.arange(count) % 2
        if python:
            entries = {"data": pixels, "fine_labels" if hundred else "labels": fine.tolist(), "batch_label": "batch"}
            entries |= {"coarse_labels": coarse.tolist()} if hundred else {}
            (folder / batch).write_bytes(pickle.dumps(entries, protocol=protocol))
        else:
            labels = np.stack([coarse, fine], axis=1) if hundred else fine[:, None]
            (folder / f"{batch}.bin").write_bytes(np.hstack([labels.astype(np.uint8), pixels]).tobytes())
    if python:
        meta, entry = ("meta", "fine_label_names") if hundred else ("batches.meta", "label_names")
        (folder / meta).write_bytes(pickle.dumps({entry: names}, protocol=protocol))
    else:
        (folder / ("fine_label_names.txt" if hundred else "batches.meta.txt")).write_text("\n".join(names) + "\n\n")
    return np.concatenate(images).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
