"""The Dockerfile and the install scripts: linted, pinned, and made of files that are there."""

import importlib.util
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from prunekd.api.doctor import examine

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker/Dockerfile"
SCRIPTS = sorted(ROOT.glob("scripts/*.sh"))


def tool(name: str) -> str:
    """A linter's program beside this Python."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.fail(f"{name} is not installed: pip install -e '.[dev]'")
    return str(path)


@pytest.fixture(scope="module")
def rootfs() -> ModuleType:
    """scripts/rootfs_build.py, which reads Dockerfiles."""
    spec = importlib.util.spec_from_file_location("rootfs_build", ROOT / "scripts/rootfs_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rootfs_build"] = module
    spec.loader.exec_module(module)
    return module


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([tool("hadolint"), DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    bad = subprocess.run([tool("hadolint"), "-"], input="FROM debian\nRUN cd /\n", capture_output=True, text=True)
    assert bad.returncode != 0
    assert "DL3006" in bad.stdout


def test_shellcheck_finds_nothing() -> None:
    scripts = [*SCRIPTS, ROOT / "docker/slurm.sh"]
    done = subprocess.run([tool("shellcheck"), "-S", "style", *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_targets_are_pinned_and_run_as_an_ordinary_user_with_a_health_check(rootfs: ModuleType) -> None:
    arguments, stages = rootfs.read_dockerfile(DOCKERFILE.read_text())
    for value in arguments.values():
        assert re.search(r":[\w.-]*\d", value), f"{value} is not pinned"
    known = {finding.name for finding in examine()}
    for target in ("cpu", "gpu"):
        words = stages[target].instructions
        assert [rest for word, rest in words if word == "USER"][-1] == "10001"
        health = json.loads(next(rest for word, rest in words if word == "HEALTHCHECK").partition("CMD")[2])
        assert health[:2] == ["prunekd", "doctor"]
        needed = [name for flag, name in pairwise(health) if flag == "--need"]
        assert needed
        assert set(needed) <= known
        assert not any(word == "COPY" and not rest.startswith("--from=") for word, rest in words), (
            "sources stay outside"
        )


def test_what_is_copied_exists_and_is_not_ignored(rootfs: ModuleType) -> None:
    _, stages = rootfs.read_dockerfile(DOCKERFILE.read_text())
    lines = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    copied = 0
    for stage in stages.values():
        for word, rest in stage.instructions:
            if word != "COPY" or rest.startswith("--from="):
                continue
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source == "." or not rootfs.ignored(source, patterns), source
                copied += 1
            for mount in re.findall(r"from=([\w-]+)", rest):
                assert mount in stages
    assert copied >= 8
    assert rootfs.ignored("docs/tour.md", patterns)
    assert rootfs.ignored("engine/prunekd/__pycache__/x.pyc", patterns)
    assert rootfs.ignored(".venv/bin/python", patterns)
    assert not rootfs.ignored("engine/prunekd/recipes/demo.yaml", patterns)


def test_a_dockerfile_is_read_with_continued_lines_and_comments_inside(rootfs: ModuleType) -> None:
    text = "# c\nARG A=x:1\nFROM ${A} AS one\nRUN a \\\n  # no\n  b\nFROM one AS two\nCOPY --from=one /x /y\n"
    arguments, stages = rootfs.read_dockerfile(text)
    assert arguments == {"A": "x:1"}
    assert [(word, rest.split()) for word, rest in stages["one"].instructions] == [("RUN", ["a", "b"])]
    assert stages["two"].base == "one"
    assert rootfs.substitute("${A}/$B-$C", {"A": "1", "B": "2"}) == "1/2-"


def test_pins_fit_what_setup_asks_for() -> None:
    from packaging.requirements import Requirement

    asked = {}
    for text in re.findall(r'"([\w-]+[=>]=[\w.]+)"', (ROOT / "setup.py").read_text()):
        requirement = Requirement(text)
        asked[requirement.name.lower()] = requirement
    for kind in ("cpu", "gpu"):
        pins = {}
        for line in (ROOT / f"docker/constraints-{kind}.txt").read_text().splitlines():
            if not line.startswith("#"):
                name, version = line.split("==")
                pins[name.lower()] = version
        assert len(pins) >= 7
        for name, version in pins.items():
            if name in asked:
                assert asked[name].specifier.contains(version), f"{name} {version} is not {asked[name]}"
    core = re.search(r"CORE = \[(.*?)\]", (ROOT / "setup.py").read_text(), re.DOTALL)
    assert core is not None
    names = {name.lower() for name in re.findall(r'"([\w-]+)>=', core[1])}
    cpu = (ROOT / "docker/constraints-cpu.txt").read_text().lower()
    missing = [name for name in sorted(names) if f"{name}==" not in cpu]
    assert not missing, f"pin {missing} in docker/constraints-cpu.txt"


def test_the_install_scripts_name_what_they_do_not_know(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", *words], cwd=ROOT, capture_output=True, text=True)

    (tmp_path / "list").write_text("libjpeg8\nlibgl1\n")
    listed = run("scripts/install_system.sh", "--list", "ffcv", f"@{tmp_path / 'list'}")
    assert listed.returncode == 0
    assert listed.stdout.split()[-2:] == ["libjpeg8", "libgl1"]
    assert "libopencv-dev" in listed.stdout
    unknown = run("scripts/install_system.sh", "--list", "cuda")
    assert unknown.returncode == 2
    assert "cuda" in unknown.stderr
    target = run("scripts/install_python.sh", sys.executable, str(Path(sys.prefix)), "everything")
    assert target.returncode == 2
    assert "everything" in target.stderr
