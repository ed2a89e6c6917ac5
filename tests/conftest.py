"""Fixtures shared by the tests, and what runs where."""

from pathlib import Path

import pytest
import torch
from support import write_arrays

from prunekd.store.convert import ConvertSettings, convert
from prunekd.store.index import Store
from prunekd.store.sources import open_source


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` need a CUDA device; without one they are skipped, visibly."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 96 training and 32 validation images of 12 x 12 pixels in 4 classes that can be learnt."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    source = open_source(write_arrays(folder / "tiny.npz"))
    return convert(source, folder / "store", ConvertSettings())
