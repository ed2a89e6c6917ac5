"""Damaged NumPy files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunekd.common.arrays import load_array

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("mapped", [False, True])
@given(position=st.integers(0, 127), value=st.integers(0, 255))
def test_a_header_of_other_bytes_is_an_error_that_names_the_file_or_reads_no_further(
    tmp_path_factory: pytest.TempPathFactory, mapped: bool, position: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.npy"
    np.save(path, VALUES)
    data = bytearray(path.read_bytes())
    data[position] = value
    path.write_bytes(data)
    refused = ""
    try:
        found = load_array(path, "make it again", mapped=mapped)
    except ValueError as error:
        refused = str(error)
    if refused:
        assert str(path) in refused
        assert refused.endswith("; make it again")
    else:
        assert found.nbytes <= VALUES.nbytes


def test_missing_empty_and_pickled_files_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("objects.npy", "empty.npy", "none.npy"):
        with pytest.raises(ValueError, match=rf"{name} .*; make it again"):
            load_array(tmp_path / name, "make it again")
