"""FFCV 1.0.2 itself reads what we write, and we read what it writes."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunekd.store import Store
from prunekd.store.format.beton import read_alloc_table, read_header, read_metadata
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from support import require, write_arrays

pytestmark = pytest.mark.ffcv


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """21 smooth JPEGs of odd sizes, among them a grey, a progressive and a re-encoded one; one unreadable file."""
    folder = tmp_path_factory.mktemp("ffcv")
    rng = np.random.default_rng(5)
    for k in range(21):
        size = (90, 700) if k == 9 else tuple(rng.integers(20, 90, size=2).tolist())
        coarse = Image.fromarray(rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8))
        image = coarse.resize(size, Image.Resampling.BICUBIC)
        path = folder / "source/train" / f"class{k % 3}" / f"{k:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        (image.convert("L") if k == 4 else image).save(path, quality=92, progressive=k == 5)
    (folder / "source/train/class1/05x.jpg").write_bytes(b"not an image")
    return convert(open_source(folder / "source"), folder / "store", ConvertSettings(max_side=200))


def rows_by_ffcv(path: Path, order: str) -> list[tuple[np.ndarray, int, int]]:
    """Every sample as FFCV's own Loader gives it: pixels, label, id."""
    require("ffcv")
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    loader = Loader(
        str(path),
        batch_size=1,
        num_workers=1,
        order=getattr(OrderOption, order),
        seed=1,
        drop_last=False,
        pipelines={
            "image": [SimpleRGBImageDecoder()],
            "label": [IntDecoder(), ToTensor()],
            "id": [IntDecoder(), ToTensor()],
        },
    )
    return [(image[0].copy(), int(label[0]), int(number[0])) for image, label, number in loader]


@pytest.mark.parametrize("order", ["SEQUENTIAL", "RANDOM"])
def test_raw_stores_are_read_exactly(tmp_path: Path, order: str) -> None:
    source = write_arrays(tmp_path / "a.npz", train=50, val=10)
    store = convert(open_source(source), tmp_path / "store", ConvertSettings())
    arrays = np.load(source)
    seen = rows_by_ffcv(store.split("train").path, order)
    assert sorted(number for _, _, number in seen) == list(range(50))
    if order == "SEQUENTIAL":
        assert [number for _, _, number in seen] == list(range(50))
    for pixels, label, number in seen:
        assert np.array_equal(pixels, arrays["train_images"][number])
        assert label == arrays["train_labels"][number]


def test_jpeg_stores_are_read_image_for_image(photos: Store) -> None:
    """SimpleRGBImageDecoder wants one size, so the store is read with FFCV's cropping decoder over whole images."""
    require("ffcv")
    from ffcv.fields.decoders import CenterCropRGBImageDecoder, IntDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    split = photos.split("train")
    side = 32
    loader = Loader(
        str(split.path),
        batch_size=4,
        num_workers=2,
        order=OrderOption.SEQUENTIAL,
        drop_last=False,
        pipelines={
            "image": [CenterCropRGBImageDecoder((side, side), ratio=1.0)],
            "label": [IntDecoder(), ToTensor()],
            "id": [IntDecoder(), ToTensor()],
        },
    )
    images, labels, ids = [], [], []
    for image, label, number in loader:
        images += [np.asarray(x).copy() for x in image]
        labels += label.flatten().tolist()
        ids += number.flatten().tolist()
    assert ids == split.ids.tolist()
    assert labels == split.labels.tolist()
    assert len(ids) == 21
    with split.payloads() as payloads:
        for row in range(21):
            whole = Image.open(io.BytesIO(payloads.read(row))).convert("RGB")
            w, h = whole.size
            c = min(w, h)
            left, top = (w - c) // 2, (h - c) // 2
            expected = whole.crop((left, top, left + c, top + c)).resize((side, side), Image.Resampling.BOX)
            difference = np.abs(np.asarray(expected).astype(int) - images[row].astype(int))
            assert difference.mean() < 4, row  # the images are smooth; FFCV's resize and fast IDCT differ slightly


def test_ffcvs_own_reader_agrees_on_the_metadata(photos: Store) -> None:
    require("ffcv")
    from ffcv.reader import Reader

    split = photos.split("train")
    reader = Reader(str(split.path))
    assert reader.num_samples == 21
    assert list(reader.field_names) == ["image", "label", "id"]
    assert reader.metadata["f1"].tolist() == split.labels.tolist()
    assert reader.metadata["f2"].tolist() == split.ids.tolist()
    assert reader.metadata["f0"]["width"].tolist() == split.widths.tolist()
    assert reader.metadata["f0"]["data_ptr"].tolist() == split.pointers.tolist()
    assert sorted(reader.alloc_table["size"].tolist()) == sorted(split.sizes.tolist())


def test_we_read_what_ffcvs_writer_writes(tmp_path: Path) -> None:
    require("ffcv")
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(7, 10, 12, 3), dtype=np.uint8)

    class Dataset(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 7

        def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
            return images[i], i % 3

    path = tmp_path / "theirs.beton"
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Dataset())
    header = read_header(path)
    rows, table = read_metadata(header), read_alloc_table(header)
    assert [field.name for field in header.fields] == ["image", "label"]
    assert rows["label"].tolist() == [i % 3 for i in range(7)]
    assert len(table) == 7
    data = path.read_bytes()
    for i in range(7):
        start = int(rows["image"]["data_ptr"][i])
        assert data[start : start + 360] == images[i].tobytes()
