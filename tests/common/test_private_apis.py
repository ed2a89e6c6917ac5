"""What is gone of torch and Numba: a logged fallback, or an error that says what to do."""

import logging
from types import SimpleNamespace

import numba
import pytest
import torch
import torch._inductor
from torch._inductor import config

from prunekd.common.private_apis import external_function, frozen_weights


def test_weights_are_frozen_inside_and_not_after() -> None:
    before = config.freezing
    with frozen_weights():
        assert config.freezing is True
    assert config.freezing == before


def test_without_the_option_the_work_is_done_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch._inductor, "config", SimpleNamespace(patch=None))
    done = False
    with caplog.at_level(logging.WARNING, logger="prunekd"), frozen_weights():
        done = True
    assert done
    (record,) = caplog.records
    assert "has no inductor option `freezing`" in record.getMessage()
    assert torch.__version__ in record.getMessage()


def test_errors_inside_are_the_callers() -> None:
    with pytest.raises(AttributeError, match="its own"), frozen_weights():
        raise AttributeError("its own")


def test_a_c_function_is_called_by_its_name() -> None:
    absolute = external_function("labs", numba.types.int64, numba.types.int64)  # of the C library, which is loaded

    @numba.njit
    def twice(x):  # type: ignore[no-untyped-def]
        return 2 * absolute(x)

    assert twice(-21) == 42


def test_without_external_functions_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(numba.types, "ExternalFunction")
    with pytest.raises(RuntimeError, match=r"Numba [\d.]+ has no types.ExternalFunction.*reader native"):
        external_function("labs", numba.types.int64, numba.types.int64)
