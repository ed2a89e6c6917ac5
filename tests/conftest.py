"""Fixtures shared by the tests, and what runs where."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch

from support import write_arrays

# a run measures how many threads are fastest just now, and its last bits follow from that: here it is told
os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))

# no test is timed: on a shared machine a deadline fails what is right
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunekd.store import Store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` need a CUDA device; without one they are skipped, visibly."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered about this machine stays out of the tests, and theirs out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the logger `prunekd` is told while a test runs, from level INFO on."""
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("prunekd")
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    yield lines
    logger.setLevel(before)
    logger.removeHandler(handler)


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 96 training and 32 validation images of 12 x 12 pixels in 4 classes that can be learnt."""
    from prunekd.store.jobs.convert import ConvertSettings, convert
    from prunekd.store.sources import open_source

    folder = tmp_path_factory.mktemp("tiny")
    source = open_source(write_arrays(folder / "tiny.npz"))
    return convert(source, folder / "store", ConvertSettings())
