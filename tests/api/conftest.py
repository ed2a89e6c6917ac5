"""A teacher and settings that the tests of training share."""

import pytest

import prunekd
from prunekd.store import Store

SMALL = {"epochs": 2, "batch_size": 16, "precision": "fp32", "train_view.size": 12, "eval_view.size": 12}


@pytest.fixture(scope="session")
def small() -> dict[str, object]:
    """Settings of a run that takes a second."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def teacher_run(tiny_store: Store, tmp_path_factory: pytest.TempPathFactory) -> prunekd.Run:
    """A finished run on the tiny store."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    return prunekd.train(tiny_store, recipe="demo", settings=SMALL, out=out, device="cpu")
