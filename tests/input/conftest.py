"""Stores of photographs for the tests of the readers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from input.reading import copy_of
from prunekd.store import Store
from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source


def photograph(rng: np.random.Generator) -> Image.Image:
    """Edges, gradients and noise, of any size from 30 to 119 pixels."""
    coarse = Image.fromarray(rng.integers(0, 256, size=(5, 6, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize(tuple(rng.integers(30, 120, size=2).tolist()), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(image + rng.normal(0, 12, size=image.shape), 0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def mixed_photos(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """40 photographs of many sizes: grey and progressive ones among them, and small ones that are stored raw."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for k in range(40):
        image = photograph(rng)
        path = folder / "source" / "train" / f"class{k % 3}" / f"{k:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if k in (6, 17, 18):
            image.resize((40, 33)).save(path.with_suffix(".png"))
        else:
            (image.convert("L") if k == 4 else image).save(path, quality=95, progressive=k == 5, subsampling=k % 3)
    store = convert(open_source(folder / "source"), folder / "store", ConvertSettings(mode="auto"))
    assert np.unique(store.split("train").modes).tolist() == [0, 1]
    return store


@pytest.fixture
def damaged_photos(mixed_photos: Store, tmp_path: Path) -> Store:
    """A copy of them that a test may damage."""
    return copy_of(mixed_photos, tmp_path)
