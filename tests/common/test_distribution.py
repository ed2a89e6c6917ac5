"""The figures of a distribution against NumPy's."""

import numpy as np
import pytest

from prunekd.common.distribution import Distribution


def test_the_figures_are_numpys_over_the_finite_values() -> None:
    values = np.array([4.0, np.nan, 1.0, np.inf, 7.0, 2.0, -np.inf])
    found, finite = Distribution.of(values), np.array([1.0, 2.0, 4.0, 7.0])
    assert (found.min, found.max, found.not_finite) == (1, 7, 3)
    assert (found.q25, found.median, found.q75) == tuple(np.percentile(finite, [25, 50, 75]))
    assert found.mean == pytest.approx(finite.mean())
    assert Distribution.of(np.array([3, 5], dtype=np.int32)).median == 4


def test_without_finite_values_there_is_nothing_but_their_number() -> None:
    assert Distribution.of(np.array([np.nan, np.inf])) == Distribution(not_finite=2)
    assert Distribution.of(np.array([], dtype=np.float32)) == Distribution()
