"""Reading the pages of docs/, and running what stands in them on tiny data."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from prunekd.cli import main
from prunekd.distill import OBJECTIVES
from prunekd.input import READERS
from prunekd.pruning.policies import POLICIES
from prunekd.pruning.scores import SCORES

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))

# seconds instead of hours: what the pages train is shrunk by settings that come last, and so win
TINY = (
    "epochs=2", "batch_size=8", "model.name=cifar_resnet8", "train_view.size=16", "eval_view.size=16",
    "progressive.start=0", "precision=fp32", "ema.decay=0",
)  # fmt: skip
TRAINING = ("train", "bench", "labels")
# what cannot be had here, and what stands in for it
STAND_INS = {
    r"timm:[\w.]+": "teacher",
    r"--seeds[= ]\d+": "--seeds 1",
    r"--views[= ]\d+": "--views 2",
    r"--topk \d+": "--topk 2",
    r"--time-only \d+": "--time-only 1",
    r"--keep 1,0.5,\S+": "--keep 1,0.5",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: its info string, its text, and the line it begins in."""

    kind: str
    text: str
    line: int

    @property
    def commands(self) -> list[str]:
        """Commands of an `sh` block (all lines) or a `console` block (after `$ `); continued lines, heredocs whole."""
        lines = iter(self.text.splitlines())
        found = []
        for line in lines:
            if self.kind.startswith("console"):
                if not line.startswith("$ "):
                    continue
                line = line[2:]
            while line.endswith("\\"):
                line = line[:-1] + next(lines).strip()
            heredoc = re.search(r"<<'?(\w+)'?", line)
            if heredoc:
                rest = []
                for more in lines:
                    rest.append(more)
                    if more == heredoc[1]:
                        break
                line = "\n".join([line, *rest])
            if line.strip() and not line.lstrip().startswith("#"):
                found.append(line)
        return found


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    found, inside, start, kind = [], [], 0, None
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if line.startswith("```") and kind is None:
            kind, start, inside = line[3:].strip(), number, []
        elif line == "```":
            assert kind is not None
            found.append(Block(kind=kind, text="\n".join(inside), line=start))
            kind = None
        elif kind is not None:
            inside.append(line)
    assert kind is None, f"{page.name}: the block in line {start} has no end"
    return found


def shrunk(command: str, settings: tuple[str, ...]) -> list[str]:
    """The words of a prunekd command, with stand-ins for what is large or far away."""
    for pattern, instead in STAND_INS.items():
        command = re.sub(pattern, instead, command)
    words = shlex.split(command, comments=True)
    if any(word in TRAINING for word in words) and "--verify" not in words:
        words += [f"--set={setting}" for setting in settings]
    return words


@contextmanager
def registries_restored() -> Iterator[None]:
    """Take back what an example adds to the registries."""
    every = (POLICIES, SCORES, OBJECTIVES, READERS)
    before = [dict(registry) for registry in every]
    try:
        yield
    finally:
        for registry, entries in zip(every, before, strict=True):
            registry.clear()
            registry.update(entries)  # type: ignore[call-overload]


def run(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run one command in `folder`: prunekd and the examples in this process, all else in a shell. Code and output.

    Args:
        settings: of a recipe, for what is trained; if there are any, stand-ins are put in too.
    """
    words = shlex.split(command, comments=True) if "\n" not in command else ["sh"]
    if words[:1] == ["prunekd"]:
        done = CliRunner().invoke(main, (shrunk(command, settings) if settings else words)[1:])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output
    if words[:1] == ["python"] and words[1].startswith("docs/examples/"):
        with registries_restored(), monkeypatch.context() as patch:
            patch.setattr(sys, "argv", shrunk(command, settings)[1:])
            try:
                runpy.run_path(words[1], run_name="__main__")
            except SystemExit as end:
                return int(end.code or 0), ""
        return 0, ""
    if words[:1] == ["torchrun"]:
        command = shlex.join([sys.executable, "-m", "torch.distributed.run", *shrunk(command, settings)[1:]])
    roots = os.pathsep.join([str(ROOT / "engine"), str(ROOT / "kernels")])
    env = {**os.environ, "PYTHONPATH": roots, "OMP_NUM_THREADS": "1"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    done_ = subprocess.run(["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True)
    return done_.returncode, done_.stdout + done_.stderr
