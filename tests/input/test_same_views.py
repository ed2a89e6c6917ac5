"""The same seed gives the same samples, boxes and flips in every reader: read off the pixels, not asked of the plan."""

import numpy as np
import pytest

from prunekd.input import READERS, ViewSettings, open_reader, train_plan
from prunekd.store import Store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from support import require

PACKAGES = {"ffcv": "ffcv", "dali": "nvidia.dali"}
SIDE, COUNT, SIZE = 96, 60, 24
VIEWS = [
    ViewSettings(kind="random_resized_crop", size=SIZE, scale=(0.1, 1.0)),
    ViewSettings(kind="center", size=SIZE),
]


@pytest.fixture(scope="module")
def ramps(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Raw images whose red says 2 x the column, green 2 x the row and blue 4 x the sample."""
    folder = tmp_path_factory.mktemp("ramps")
    images = np.zeros((COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    images[..., 0] = 2 * np.arange(SIDE)
    images[..., 1] = 2 * np.arange(SIDE)[:, None]
    images[..., 2] = 4 * np.arange(COUNT)[:, None, None]
    labels = np.zeros(COUNT, dtype=np.int64)
    np.savez(
        folder / "a.npz",
        train_images=images,
        train_labels=labels,
        val_images=images[:1],
        val_labels=labels[:1],
        classes=np.array(["only"]),
    )
    return convert(open_source(folder / "a.npz"), folder / "store", ConvertSettings(mode="raw"))


def read_off(image: np.ndarray) -> tuple[int, list[float], bool]:
    """Sample, box and flip of a view: a ramp stays a ramp whatever the filter, but for the edges."""
    inner = image[4:-4, 4:-4].astype(float) / 2
    centres = np.arange(4, SIZE - 4) + 0.5
    across, down = np.polyfit(centres, inner[..., 0].mean(0), 1), np.polyfit(centres, inner[..., 1].mean(1), 1)
    flip = across[0] < 0
    width, height = abs(across[0]) * SIZE, down[0] * SIZE
    left = across[1] + 0.5 + (across[0] * SIZE if flip else 0)
    return round(image[0, 0, 2] / 4), [left, down[1] + 0.5, width, height], bool(flip)


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.kind)
@pytest.mark.parametrize("name", READERS)
def test_samples_boxes_and_flips_are_the_plans(ramps: Store, name: str, view: ViewSettings) -> None:
    if name in PACKAGES:
        require(PACKAGES[name])
    epoch = train_plan(ramps.split("train"), ids=None, seed=7, epoch=3, batch_size=10, view=view)
    flips = set()
    with open_reader(name, ramps, "train", workers=2 if name != "torch" else 0) as reader:
        for number, batch in enumerate(reader.epoch(epoch)):
            planned = epoch.batch(number)
            assert batch.ids.tolist() == planned.ids.tolist()
            for k, image in enumerate(batch.images.permute(0, 2, 3, 1).numpy()):
                sample, box, flip = read_off(image)
                assert sample == planned.ids[k]
                assert flip == planned.flips[k]
                assert np.abs(np.array(box) - planned.boxes[k]).max() < 0.4, (number, k)  # a box of whole pixels
                flips.add(flip)
    assert flips == ({False, True} if view.kind == "random_resized_crop" else {False})
