"""Damaged subsets: bytes changed anywhere are noticed, and the file is named, or the ids are what they were."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunekd.pruning import read_subset, select, write_subset
from pruning.stores import store_of

EDITS = st.lists(
    st.tuples(st.sampled_from(["write", "flip", "cut"]), st.floats(0, 1, exclude_max=True), st.binary(min_size=1)),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def subset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = store_of(np.arange(500), np.arange(500) % 2, classes=("cat", "dog"))
    path = tmp_path_factory.mktemp("subset") / "subset.parquet"
    write_subset(path, select(store, "random", 0.5))
    return path


@settings(max_examples=300)
@given(edits=EDITS)
def test_a_damaged_subset_is_named_or_still_right(subset_file: Path, edits: list[tuple[str, float, bytes]]) -> None:
    data = bytearray(subset_file.read_bytes())
    for how, where, content in edits:
        at = int(where * len(data))
        if how == "cut":
            del data[at:]
        elif data:
            data[at : at + len(content)] = [data[at] ^ (1 << content[0] % 8)] if how == "flip" else content
    path = subset_file.with_name("tampered.parquet")
    path.write_bytes(data)
    try:
        ids = read_subset(path).ids
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017  # both outcomes are right
    else:
        np.testing.assert_array_equal(ids, read_subset(subset_file).ids)
