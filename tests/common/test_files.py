"""Files that people and programs damage: every reader names the file; none depends on the locale."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import prunekd
from prunekd.common.files import read_json, read_records, read_text
from prunekd.sweep.settings import as_settings
from prunekd.training import load_recipe

ENGINE = Path(prunekd.__file__).parent

EVERYTHING = """
from pathlib import Path
import locale, sys
assert locale.getpreferredencoding(False) == "ANSI_X3.4-1968", locale.getpreferredencoding(False)
from prunekd.cli import main
def run(*words):
    sys.argv = ["prunekd", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
train = ["--recipe", "recipe.yaml", "--device", "cpu"]
run("convert", "images.npz", "store")
run("train", "store", *train, "--out", "run")
run("train", "store", *train, "--out", "run", "--resume", "auto")
run("bench", "store", *train, "--arms", "plain", "--keep", "1,0.5", "--out", "sweep")
run("report", "sweep", "--out", "report.html")
for path in ("store", "run"):
    run("inspect", path)
"""


@pytest.mark.slow
def test_an_ascii_locale_makes_no_difference(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (32, 12, 12, 3), dtype=np.uint8), np.arange(32) % 2
    classes = np.array(["Äpfel", "雪"])
    np.savez(
        tmp_path / "images.npz",
        train_images=images, train_labels=labels, val_images=images, val_labels=labels, classes=classes,
    )  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(
        "# für alle\nmodel: {name: cifar_resnet8}\nepochs: 1\nbatch_size: 8\n"
        "train_view: {kind: pad_crop, size: 12}\neval_view: {kind: full, size: 12}\n",
        encoding="utf-8",
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING],
        cwd=tmp_path, env={**os.environ, **plain}, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def text_files(tree: ast.AST) -> list[ast.Call]:
    """Calls that open a file as text without saying in which encoding."""
    found = []
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, (ast.Attribute, ast.Name))):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
        names = [keyword.arg for keyword in call.keywords]
        strings = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        builtin = isinstance(call.func, ast.Name)
        modes = strings[1:] if builtin else strings
        opens = name == "open" and ((builtin and not modes) or any(set(mode) <= set("rwax+t") for mode in modes))
        if (opens or name in ("read_text", "write_text")) and "encoding" not in names and len(call.args) < 2:
            found.append(call)
    return found


def test_every_text_file_is_opened_with_its_encoding() -> None:
    wanting = [
        f"{path.relative_to(ENGINE)}:{call.lineno}"
        for path in sorted(ENGINE.rglob("*.py"))
        for call in text_files(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert wanting == []
    assert len(text_files(ast.parse("open(p); p.open('w'); p.read_text(); open(p, 'rb'); p.open('wb')"))) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "must be a JSON object"),
        (b'{"b": 1}', "a is missing"),
        (b'{"a": true}', "a is True; it must be an integer"),
        (b'{"a": "1"}', "a is '1'; it must be an integer"),
        (b'{"a": null}', "a is None"),
        (b"\xff", "not valid JSON"),
        (b"", "not valid JSON"),
    ],
)
def test_what_is_not_as_required_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.json .*{message}"):
        read_json(file, {"a": int})


def test_integers_are_numbers_and_further_keys_are_let_be(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"a": 1, "b": None, "c": []}))
    assert read_json(file, {"a": float, "b": (float, type(None))})["c"] == []


def test_records_are_read_around_damage(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    assert list(read_records(file, {})) == []
    file.write_bytes(b'{"a": 1}\n\xff\n[]\n\n{"a": "x"}\n{"a": 2}\n{"a": 3}')
    assert [record["a"] for _, record in read_records(file, {"a": int})] == [1, 2]


@pytest.mark.timeout(20)
def test_only_regular_files_in_utf_8_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "latin.yaml").write_bytes("épochs: 1".encode("latin-1"))
    for name, message in (
        ("pipe.yaml", "is a pipe or a device; give a regular file"),
        ("latin.yaml", "is not text in UTF-8"),
        ("none.yaml", "does not exist"),
        (".", "is a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            read_text(tmp_path / name, "recipe")
    with pytest.raises(ValueError, match="pipe"):
        load_recipe(str(tmp_path / "pipe.yaml"))
    with pytest.raises(ValueError, match="pipe"):
        as_settings(tmp_path / "pipe.yaml")
