"""A pytest plugin: tests fail where machine code would decode, and the run says how many files simplejpeg decoded."""

from collections.abc import Iterator
from typing import Any

import pytest

from prunekd._native import libjpeg
from prunekd.input.readers import decode

COUNT = "JPEG files decoded whole:"
whole = decode._whole
decoded = 0


@pytest.fixture(scope="session", autouse=True)
def no_machine_code() -> Iterator[None]:
    """Count whole decodes, and let nothing bind the library."""

    def counted(*args: Any) -> Any:
        global decoded
        decoded += 1
        return whole(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "_whole", counted)
        patch.setattr(libjpeg, "bound", lambda: pytest.fail("machine code is used in spite of PRUNEKD_NATIVE=0"))
        yield


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the count, which the test that started this run reads."""
    terminalreporter.write_line(f"{COUNT} {decoded}")
