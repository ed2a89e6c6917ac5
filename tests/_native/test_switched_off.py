"""The readers' tests once more with PRUNEKD_NATIVE=0, in a process that fails if machine code is used."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prunekd._native.libjpeg import SWITCH

TESTS = Path(__file__).parent.parent
# FFCV and DALI decode by themselves, the Loader and what is left behind do not depend on the decoder, and tests of the
# switch set it as they need it.
LEFT_OUT = "not ffcv and not dali and not left_early and not test_the_switch and not test_the_reader_says"
MORE = ["-p", "no:cacheprovider", "-k", LEFT_OUT, "--ignore", "input/test_loader.py", "input"]


@pytest.mark.skipif(os.environ.get(SWITCH) == "0", reason="this run is switched off itself")
def test_readers_pass_without_machine_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "_native.whole_only", *MORE],
        env=os.environ | {SWITCH: "0", "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])},
        cwd=TESTS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    decoded = re.search(r"JPEG files decoded whole: (\d+)", done.stdout)
    assert passed is not None
    assert decoded is not None
    assert int(passed[1]) > 60, done.stdout[-2000:]
    assert int(decoded[1]) > 1000, done.stdout[-2000:]
