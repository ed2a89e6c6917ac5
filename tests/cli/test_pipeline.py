"""The main path through the command line, and what it says to bad input."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from prunekd.cli import VERBS, main
from support import write_arrays

SMALL = ["--set", "epochs=2", "--set", "batch_size=16", "--set", "train_view.size=12", "--set", "eval_view.size=12"]


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a teacher, made by the commands."""
    folder = tmp_path_factory.mktemp("work")
    write_arrays(folder / "source.npz")
    run("convert", folder / "source.npz", folder / "store")
    run("train", folder / "store", "--recipe", "demo", *SMALL, "--out", folder / "teacher")
    run("score", folder / "store", "--teacher", folder / "teacher", "--out", folder / "scores.parquet")
    return folder


def test_the_whole_path(work: Path) -> None:
    store, scores, half = work / "store", work / "scores.parquet", work / "half.parquet"
    made = run("select", store, "--policy", "medium", "--scores", scores, "--keep", 0.5, "--out", half, "--json")
    assert json.loads(made.stdout)["kept"] == 48
    student = run(
        "train", store, "--recipe", "demo", *SMALL, "--subset", half, "--teacher", work / "teacher",
        "--reshape", scores, "--alpha", 0.9, "--temperature", 2, "--out", work / "student", "--json",
    )  # fmt: skip
    result = json.loads(student.stdout)
    assert result["samples_kept"] == 48
    assert result["alpha"] == 0.9
    assert "objective: kd, alpha 0.9 (as set), temperature 2" in student.stderr
    assert "not compiled: " in student.stderr  # why is said
    again = run("train", store, "--recipe", "demo", *SMALL, "--out", work / "teacher", "--resume", "auto", "--json")
    assert json.loads(again.stdout)["name"] == "teacher"
    assert "finished already" in again.stderr
    run(
        "bench", store, "--recipe", "demo", *SMALL, "--teacher", work / "teacher", "--keep", "1,0.5",
        "--policies", "random,medium", "--out", work / "sweep",
    )  # fmt: skip
    assert (work / "sweep/scores.parquet").exists()
    facts = json.loads((work / "sweep/sweep.json").read_text())
    assert facts["costs"]["score"]["seconds"] > 0
    report = run("report", work / "sweep", "--out", work / "report.html")
    assert report.stdout.strip().splitlines()[-1] == str(work / "report.html")
    assert all((work / f"report.{kind}").stat().st_size > 0 for kind in ("html", "png", "csv", "json"))


def test_scores_can_be_of_a_seeded_training_view(work: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(
            "score", work / "store", "--teacher", work / "teacher", "--view", "train", "--recipe", "demo",
            "--seed", seed, "--out", work / f"{name}.parquet",
        )  # fmt: skip
    from prunekd.pruning.scores import read_scores

    a, b, c = (read_scores(work / f"{name}.parquet").columns["teacher_ce"] for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_the_installed_script_and_the_module_answer() -> None:
    script = Path(sys.executable).with_name("prunekd")
    commands = [[sys.executable, "-m", "prunekd"], *([[str(script)]] if script.exists() else [])]
    for command in commands:
        done = subprocess.run([*command, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    text = run(verb, "--help").stdout
    assert "Example:" in text
    assert f"prunekd {verb}" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "{store}", "--recipe", "nope", "--out", "{tmp}/x"], "unknown recipe 'nope'"),
        (["train", "{store}", "--recipe", "demo", "--set", "optimizer.rate=1", "--out", "{tmp}/x"], "optimizer.rate"),
        (["train", "{store}", "--recipe", "demo", "--set", "epoch=1", "--out", "{tmp}/x"], "did you mean epochs?"),
        (["train", "{store}", "--recipe", "demo", "--alpha", "1.5", "--out", "{tmp}/x"], "distill.alpha is 1.5"),
        (["train", "{store}", "--recipe", "demo", "--teacher", "{tmp}/none", "--out", "{tmp}/x"], "does not exist"),
        (["train", "{tmp}/missing", "--recipe", "demo", "--out", "{tmp}/x"], "missing"),
        (["train", "{tmp}", "--recipe", "demo", "--out", "{tmp}/x"], "store"),
        (
            ["train", "{store}", "--recipe", "demo", "--subset", "{store}/store.json", "--out", "{tmp}/x"],
            "not a Parquet",
        ),
        (["train", "{store}", "--recipe", "demo", "--reader", "nativ", "--out", "{tmp}/x"], "did you mean 'native'?"),
        (["train", "{store}", "--recipe", "demo", "--out", "{store}"], "not empty"),
        (["select", "{store}", "--policy", "random", "--keep", "0", "--out", "{tmp}/s"], "(0, 1]"),
        (["select", "{store}", "--policy", "random", "--keep", "1.5", "--out", "{tmp}/s"], "(0, 1]"),
        (["select", "{store}", "--policy", "medium", "--keep", "0.5", "--out", "{tmp}/s"], "score"),
        (["bench", "{store}", "--recipe", "demo", "--keep", "1,2", "--out", "{tmp}/s"], "(0, 1]"),
        (["bench", "{store}", "--recipe", "demo", "--out", "{tmp}/s"], "needs a teacher"),
        (["convert", "{tmp}/missing", "{tmp}/s"], "missing"),
        (["convert", "{work}/source.npz", "{store}"], "overwrite"),
        (["score", "{store}", "--teacher", "{work}/teacher", "--out", "{work}/scores.parquet"], "exists"),
        (["report", "{tmp}", "--out", "{tmp}/r.html"], "sweep"),
    ],
)
def test_bad_usage_is_one_line_that_names_it_and_exit_code_2(
    work: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    filled = [word.format(store=work / "store", tmp=tmp_path, work=work) for word in words]
    result = run(*filled, code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not result.stdout


def test_a_teacher_of_other_classes_and_a_foreign_subset_are_refused(work: Path, tmp_path: Path) -> None:
    write_arrays(tmp_path / "other.npz", classes=5, train=100, val=20)
    run("convert", tmp_path / "other.npz", tmp_path / "other")
    wrong = ["train", tmp_path / "other", "--recipe", "demo", *SMALL, "--out", tmp_path / "x"]
    result = run(*wrong, "--teacher", work / "teacher", code=2)
    assert "has 4 classes and the store has 5" in result.stderr
    run("select", work / "store", "--policy", "random", "--keep", 0.5, "--out", tmp_path / "half.parquet")
    result = run(*wrong, "--subset", tmp_path / "half.parquet", code=2)
    assert str(work / "store") in result.stderr
    assert str(tmp_path / "other") in result.stderr


def test_debug_shows_the_traceback(work: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--debug", "train", str(work / "store"), "--recipe", "nope", "--out", "x"])
    assert isinstance(result.exception, ValueError)


def test_json_of_a_run_is_clean_stdout(work: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prunekd", "inspect", str(work / "teacher"), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)


def test_dynamics_gathered_in_training_choose_a_subset(work: Path) -> None:
    store, out = work / "store", work / "tracked"
    run("train", store, "--recipe", "demo", *SMALL, "--set", "epochs=3", "--track", "all", "--out", out)
    scores = out / "scores.parquet"
    made = run("select", store, "--policy", "beta", "--score", "dual", "--scores", scores, "--keep", 0.25, "--json",
               "--out", work / "beta.parquet")  # fmt: skip
    assert json.loads(made.stdout)["kept"] == 24
    wrong = run("train", store, "--recipe", "demo", "--track", "dul", "--out", work / "none", code=2)
    assert "'dul' (did you mean 'dual'?)" in wrong.stderr


def test_a_sweep_over_alpha_ends_in_its_table(work: Path) -> None:
    out = work / "alphas"
    swept = run("bench", work / "store", "--recipe", "demo", *SMALL, "--set", "epochs=1", "--teacher", work / "teacher",
                "--sweep", "alpha", "--keep", "1,0.5", "--out", out)  # fmt: skip
    with (out / "alpha.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["keep"], row["alpha"]) for row in rows] == [
        (keep, alpha) for keep in ("1.0", "0.5") for alpha in ("0.0", "0.25", "0.5", "0.75", "0.9", "1.0")
    ]
    for row in rows:
        name = "plain" if row["alpha"] == "0.0" else f"alpha{round(100 * float(row['alpha']))}"
        policy = "all" if row["keep"] == "1.0" else "random"
        result = json.loads(
            (out / "runs" / f"{name}-{policy}-keep{float(row['keep']):g}-seed0/result.json").read_text()
        )
        assert float(row["top1"]) == pytest.approx(result["top1"], abs=1e-5)
        assert (result["alpha"] or 0.0) == float(row["alpha"])
    assert sum(row["best"] == "True" for row in rows) == 2
    assert swept.stdout.splitlines()[-1] == str(out / "alpha.csv")


def test_a_keep_ratio_is_a_fraction_of_what_there_was_before_compacting(work: Path) -> None:
    store = work / "store"
    run("select", store, "--policy", "random", "--keep", "0.5,0.25", "--out", work / "r{keep}.parquet", "--json")
    half, quarter = work / "r0.5.parquet", work / "r0.25.parquet"
    run("compact", store, "--subset", half, "--out", work / "half")
    train = ["--recipe", "demo", *SMALL, "--set", "epochs=1", "--json", "--out"]
    alone = json.loads(run("train", work / "half", *train, work / "alone").stdout)
    assert (alone["samples_kept"], alone["samples_total"], alone["keep"]) == (48, 96, 0.5)
    part = json.loads(run("train", work / "half", "--subset", quarter, *train, work / "part").stdout)
    assert (part["samples_kept"], part["samples_total"], part["keep"]) == (24, 96, 0.25)


def test_a_finished_run_is_not_taken_for_one_with_other_settings(work: Path) -> None:
    train = ["train", work / "store", "--recipe", "demo", *SMALL, "--out", work / "done"]
    run(*train)
    assert "finished already" in run(*train, "--resume", "auto").stderr
    other = run(*train, "--set", "epochs=3", "--resume", "auto", code=2)
    assert "was started with recipe.epochs = 2, not 3" in other.stderr


def test_a_reader_that_does_not_exist_leaves_no_folder_behind(work: Path) -> None:
    run("train", work / "store", "--recipe", "demo", "--reader", "nativ", "--out", work / "unread", code=2)
    assert not (work / "unread").exists()
