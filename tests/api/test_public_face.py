"""The names of `prunekd`: what importing it loads, whether its lists agree, its types, its docstrings' examples."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pytest
from click.testing import CliRunner

import prunekd
from prunekd.cli import main
from store.datasets import image_folder
from support import require, write_arrays

ROOT = Path(__file__).parents[2]
NAMES = [name for name in prunekd.__all__ if not name.startswith("_")]
HEAVY = ("torch", "numpy", "pyarrow", "click")

# what an example cannot have in a test, and what stands in for it: seconds instead of hours, no GPU, no downloads
STAND_INS = {
    r"timm:[\w.]+": "teacher",
    r'"cuda"': '"cpu"',
    r"range\(\d\d+\)": "range(2)",
    r"batch_size=\d+": "batch_size=8",
    r"views=\d+": "views=2",
    r'recipe="\w+"': 'recipe="demo", settings={"epochs": 1, "batch_size": 8}',
}
SETTINGS = r",\s*settings=\{[^}]*\}"  # an example's own, for which the stand-in's come


def test_importing_prunekd_imports_nothing_heavy() -> None:
    script = f"import prunekd, sys; print(sorted(set(sys.modules) & {set(HEAVY)!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(prunekd, "nothing")  # noqa: B009 - mypy sees that it is not there


def test_the_lists_of_names_agree() -> None:
    tree = ast.parse(Path(str(prunekd.__file__)).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == prunekd._HOMES
    assert all(alias.asname == alias.name for node in imports for alias in node.names)  # re-exported, for mypy
    assert len(set(prunekd.__all__)) == len(prunekd.__all__)
    assert set(prunekd.__all__) == {*prunekd._HOMES, "__version__"}
    assert set(prunekd.__all__) <= set(dir(prunekd))


@pytest.mark.parametrize("name", NAMES)
def test_no_subpackage_takes_the_place_of_a_name(name: str) -> None:
    """Importing `prunekd.NAME` would set the attribute NAME of `prunekd` to that module."""
    assert name not in {module.name for module in iter_modules(prunekd.__path__)}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_its_module_defines_and_has_a_docstring(name: str) -> None:
    value = getattr(prunekd, name)
    assert value is getattr(import_module(prunekd._HOMES[name]), name)
    assert inspect.getdoc(value)
    assert value.__doc__  # its own, not an ancestor's


def type_checked(script: str) -> tuple[str, set[int]]:
    """What mypy says of a script beside this file, as strictly as it can, and the lines it finds wrong."""
    require("mypy")
    # torch has untyped functions, and a user's np.ndarray need not name its dtype
    options = ["--strict", "--allow-untyped-calls", "--disable-error-code=type-arg", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", *options, f"--cache-dir={ROOT / '.mypy_cache/users'}", script],
        cwd=Path(__file__).parent,
        env={**os.environ, "MYPYPATH": f"{ROOT / 'engine'}:{ROOT / 'kernels'}"},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr, {int(line) for line in re.findall(rf"^{script}:(\d+): error", done.stdout, re.M)}


@pytest.mark.slow
def test_a_users_script_type_checks() -> None:
    said, _ = type_checked("sample_user.py")
    assert said.startswith("Success"), said


@pytest.mark.slow
def test_a_users_mistakes_are_found_by_their_types() -> None:
    """Which shows that the types above are there: where a name's type is unknown, mypy finds nothing wrong."""
    lines = Path(__file__).with_name("wrong_user.py").read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, start=1) if "# wrong" in line}
    said, found = type_checked("wrong_user.py")
    assert found == wrong, said


def example(name: str) -> str | None:
    """The code under `Example:` in a docstring: an indented block, with or without doctest's prompts."""
    found = re.search(
        r"^Examples?:\n((?:[ \t]+\S.*\n?|[ \t]*\n)+)", f"{inspect.getdoc(getattr(prunekd, name))}\n", re.M
    )
    if found is None:
        return None
    code = textwrap.dedent(found[1])
    if ">>> " in code:
        code = "\n".join(line[4:] for line in code.splitlines() if line.startswith((">>> ", "... ", "...")))
    for pattern, instead in STAND_INS.items():
        if "settings=" in instead and re.search(pattern, code):
            code = re.sub(SETTINGS, "", code)
        code = re.sub(pattern, instead, code)
    return code


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What examples start from, made by the command line: `photos`, `store`, `teacher`, `scores.parquet`, ..."""
    folder = tmp_path_factory.mktemp("examples")
    image_folder(folder / "photos", count=20)
    write_arrays(folder / "source.npz")
    small = ["--recipe", "demo", "--set", "epochs=1", "--set", "batch_size=16"]

    def verb(*words: object) -> None:
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output

    store, teacher, scores = folder / "store", folder / "teacher", folder / "scores.parquet"
    verb("convert", folder / "source.npz", store)
    verb("train", store, *small, "--out", teacher)
    verb("score", store, "--teacher", teacher, "--out", scores)
    verb("select", store, "--policy", "medium", "--scores", scores, "--keep", 0.5, "--out", folder / "half.parquet")
    verb("labels", store, "--teacher", teacher, *small, "--views", 2, "--out", folder / "labels")
    verb("bench", store, *small, "--arms", "plain", "--keep", "1,0.5", "--out", folder / "sweep")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_docstring_runs(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with those files; with `prunekd`, `np`, `torch`, `store`, `scores`, `half` and all public names."""
    code = example(name)
    if code is None:
        assert not inspect.isfunction(getattr(prunekd, name)), f"the docstring of prunekd.{name} has no Example"
        return
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    names = {
        "prunekd": prunekd,
        "np": np,
        "torch": require("torch"),
        "store": prunekd.open_store("store"),
        "scores": import_module("prunekd.pruning.scores").read_scores(Path("scores.parquet")),
        "half": import_module("prunekd.pruning").read_subset(Path("half.parquet")),
        **{public: getattr(prunekd, public) for public in NAMES if re.search(rf"(?<![\w.]){public}\(", code)},
    }
    exec(compile(code, f"<example of prunekd.{name}>", "exec"), names)
