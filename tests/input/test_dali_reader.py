"""The dali reader: the plan's samples and views, torchvision's pixels within a tolerance; no fault kills it."""

import gc
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from input.reading import collect, opened, plan_of, seen
from prunekd.input import EpochPlan, ViewSettings, eval_plan
from prunekd.store import Store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from support import require, write_arrays

pytestmark = pytest.mark.dali

RRC = ViewSettings(kind="random_resized_crop", size=24, scale=(0.1, 1.0))
VIEWS = [
    RRC,
    ViewSettings(kind="random_resized_crop", size=90),
    ViewSettings(kind="pad_crop", size=24, padding=5),
    ViewSettings(kind="center", size=24),
    ViewSettings(kind="full", size=40),
]
INSIDE, EDGE = 1, 60  # levels of 255 that a pixel may be off


def assert_close(mine: torch.Tensor, other: torch.Tensor) -> None:
    """Hold images (B, 3, h, w) to the tolerance.

    At an edge 1/8 of a filter's weight hangs over, at a corner 1 - (7/8)^2 = 0.23: DALI has the edge pixel there,
    torchvision nothing.
    """
    difference = (mine.int() - other.int()).abs()
    assert difference[..., 1:-1, 1:-1].max() <= INSIDE
    assert difference.max() <= EDGE


@pytest.fixture(scope="module", autouse=True)
def dali() -> None:
    require("nvidia.dali")


def plan(store: Store, view: ViewSettings = RRC, **more: Any) -> EpochPlan:
    return plan_of(store, view, **more)


def by_torchvision(pixels: np.ndarray, box: list[int], flip: bool, size: int) -> torch.Tensor:
    """The view of an image (h, w, 3) by torchvision, from the definitions of box and flip; (3, size, size)."""
    left, top, width, height = box
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    image = tv.resized_crop(image, top, left, height, width, [size, size], antialias=True)
    return tv.horizontal_flip(image) if flip else image


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: f"{v.kind}-{v.size}")
def test_samples_are_those_of_native_and_pixels_those_of_torchvision(mixed_photos: Store, view: ViewSettings) -> None:
    split, epoch = mixed_photos.split("train"), plan(mixed_photos, view)
    with opened("dali", mixed_photos) as reader, opened("native", mixed_photos) as native, split.payloads() as payloads:
        mine, other = collect(reader, epoch), collect(native, epoch)
        assert len(mine) == len(other) == 5
        for number, ((images, labels, ids), (_, native_labels, native_ids)) in enumerate(zip(mine, other, strict=True)):
            assert torch.equal(labels, native_labels)
            assert torch.equal(ids, native_ids)
            planned = epoch.batch(number)
            for i, row in enumerate(planned.rows.tolist()):
                if split.modes[row]:
                    pixels = np.frombuffer(payloads.read(row), np.uint8).reshape(33, 40, 3)
                else:
                    pixels = np.asarray(Image.open(io.BytesIO(payloads.read(row))).convert("RGB"))
                expected = by_torchvision(pixels, planned.boxes[i].tolist(), bool(planned.flips[i]), view.size)
                assert_close(images[i : i + 1], expected[None])


@pytest.mark.parametrize("view", [RRC, VIEWS[2]], ids=lambda v: v.kind)
def test_boxes_and_flips_are_exact(tmp_path: Path, view: ViewSettings) -> None:
    """On raw noise every box but the right one gives other pixels."""
    store = convert(open_source(write_arrays(tmp_path / "a.npz", side=24)), tmp_path / "store", ConvertSettings())
    arrays, epoch = np.load(tmp_path / "a.npz")["train_images"], plan(store, view)
    with opened("dali", store) as reader:
        for number, (images, _, ids) in enumerate(collect(reader, epoch)):
            planned = epoch.batch(number)
            for i, sample in enumerate(ids.tolist()):
                box = planned.boxes[i].tolist()
                expected = by_torchvision(arrays[sample], box, bool(planned.flips[i]), view.size)
                assert (images[i].int() - expected.int()).abs().max() <= (1 if box[2:] != [24, 24] else 0)


def test_all_batches_of_an_epoch_may_be_kept(mixed_photos: Store) -> None:
    with opened("dali", mixed_photos) as reader:
        kept, copies = [], []
        for batch in reader.epoch(plan(mixed_photos, batch_size=3)):
            kept.append(batch.images)
            copies.append(batch.images.clone())
        seen(reader, plan(mixed_photos, batch_size=3))
    del reader
    gc.collect()
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_an_index_that_states_another_size_is_noticed_before_dali_sees_the_image(damaged_photos: Store) -> None:
    split = damaged_photos.split("train")
    row = int(np.flatnonzero(split.modes == 0)[5])
    damaged_photos.splits["train"] = split = replace(split, heights=split.heights + 9 * (np.arange(len(split)) == row))
    with (
        opened("dali", damaged_photos) as reader,
        pytest.raises(ValueError, match=rf"sample {split.ids[row]} .*the index says"),
    ):
        seen(reader, eval_plan(split, batch_size=8, view=RRC))


def test_an_error_of_dali_is_a_runtime_error_with_its_message(mixed_photos: Store) -> None:
    """A box outside the image, which no plan has, stands for whatever DALI may refuse."""
    epoch = plan(mixed_photos)

    class Wrong(EpochPlan):
        def batch(self, number: int) -> Any:
            return epoch.batch(number)._replace(boxes=np.full((7, 4), 500, np.int32))

    wrong = Wrong(split=epoch.split, ids=epoch.ids, batch_size=7, view=epoch.view)
    with opened("dali", mixed_photos) as reader:
        with pytest.raises(RuntimeError, match=r"DALI failed: .*image_slice"):
            seen(reader, wrong)
        assert seen(reader, epoch) == epoch.ids.tolist()


@pytest.mark.gpu
def test_decoding_on_a_gpu(mixed_photos: Store) -> None:
    """nvJPEG's inverse DCT and chroma upsampling round otherwise; the boxes and flips are the plan's."""
    epoch = plan(mixed_photos, VIEWS[1])
    with opened("dali", mixed_photos, pin=True) as reader, opened("native", mixed_photos) as native:
        for mine, other in zip(reader.epoch(epoch), native.epoch(epoch), strict=True):
            assert mine.images.is_cuda
            assert torch.equal(mine.ids, other.ids)
            assert (mine.images.cpu().int() - other.images.int()).abs().float().mean() < 2
