"""prunekd.run_sweep and report: a study as object, mapping or file; what the verbs do."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import prunekd
from prunekd.api.sweeps import SweepSettings, forecast
from prunekd.cli import main
from prunekd.store import Store
from prunekd.sweep.progress import RunState, SweepProgress

GRID: dict[str, object] = {"keeps": [1, 0.5], "arms": ["plain", "kd"], "policies": ["medium"]}


@pytest.fixture(scope="module")
def sweep(
    tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> prunekd.Sweep:
    """From a mapping, with the teacher as an object."""
    teacher = prunekd.open_teacher(teacher_run.path, tiny_store, device="cpu")
    study = {"recipe": "demo", "settings": small, "teacher": teacher, **GRID}
    return prunekd.run_sweep(study, tiny_store, out=tmp_path_factory.mktemp("sweeps") / "mapping", device="cpu")


def plan_of(sweep: prunekd.Sweep) -> dict[str, object]:
    """What sweep.json says of the sweep itself, without seconds, the machine and the command."""
    apart = ("costs", "machine", "commands")
    return {name: value for name, value in sweep.facts.items() if name not in apart}


def test_a_study_is_the_same_sweep_as_object_mapping_and_file(
    sweep: prunekd.Sweep, tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path
) -> None:
    settings = SweepSettings(
        recipe="demo", settings=small, keeps=(1, 0.5), arms=("plain", "kd"), policies=("medium",),
        teacher=teacher_run.path,
    )  # fmt: skip
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"recipe": "demo", "settings": small, "teacher": str(teacher_run.path), **GRID}))
    seen: list[RunState | None] = []
    passes: set[tuple[str, int]] = set()

    def watch(progress: SweepProgress, state: RunState | None) -> None:
        seen.append(state)
        assert set(progress.states) == set(sweep.facts["runs"])

    by_object = prunekd.run_sweep(
        settings, str(tiny_store.path), out=tmp_path / "object", device="cpu", progress=watch,
        passes=lambda name, done, total: passes.add((name, total)),
    )  # fmt: skip
    by_file = prunekd.run_sweep(file, tiny_store, out=str(tmp_path / "file"), device="cpu")
    assert plan_of(by_object) == plan_of(by_file) == plan_of(sweep)
    accuracies = [[run.top1 for run in one.runs] for one in (sweep, by_object, by_file)]
    assert accuracies[0] == accuracies[1] == accuracies[2]
    assert seen[0] is None
    assert seen[-1] is not None
    assert passes == {("score", 96)}
    assert (by_object.path / "tensorboard").is_dir()


def test_the_verb_makes_the_same_sweep(
    sweep: prunekd.Sweep, tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path
) -> None:
    words = ["bench", tiny_store.path, "--recipe", "demo", "--teacher", teacher_run.path, "--keep", "1,0.5"]
    words += ["--arms", "plain,kd", "--policies", "medium", "--out", tmp_path / "verb", "--json", "--device", "cpu"]
    words += [f"--set={key}={value}" for key, value in small.items()]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [one["name"] for one in told] == list(sweep.asked)
    assert [one["top1"] for one in told] == [sweep.result(name)["top1"] for name in sweep.asked]


def test_a_grown_sweep_knows_what_was_asked_for_last(
    sweep: prunekd.Sweep, tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object]
) -> None:
    study = {"recipe": "demo", "settings": small, "teacher": teacher_run.path, "arms": ["plain"], "keeps": [0.25]}
    grown = prunekd.run_sweep(study, tiny_store, out=sweep.path, device="cpu")
    assert grown.asked == ("plain-random-keep0.25-seed0",)
    assert len(grown.runs) == len(sweep.runs) + 1


def test_an_alpha_sweep_writes_its_table(
    tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path
) -> None:
    study = {"recipe": "demo", "settings": {**small, "epochs": 1}, "teacher": teacher_run.path, "sweep": "alpha"}
    swept = prunekd.run_sweep({**study, "keeps": [0.5]}, tiny_store, out=tmp_path / "alphas", device="cpu")
    assert len((swept.path / "alpha.csv").read_text().splitlines()) == 1 + 6


def test_a_forecast_writes_nothing(
    tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path
) -> None:
    study = {"recipe": "demo", "settings": small, "teacher": teacher_run.path, **GRID}
    found = forecast(study, tiny_store, out=tmp_path / "none", device="cpu")
    assert (len(found.runs), found.finished, set(found.once)) == (4, 0, {"score"})
    assert found.seconds > 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"recipe": "demo", "keep": [1]}, "unknown setting keep; did you mean keeps"),
        ({"recipe": "demo", "keeps": 1}, "keeps is 1; it must be a list"),
        ({"keeps": [1]}, "missing setting recipe"),
        ({"recipe": "demo", "seeds": 0}, "seeds is 0; it must be 1 or more"),
        ({"recipe": "demo", "arms": ["kd"]}, "needs a teacher"),
        ({"recipe": "demo", "sweep": "beta"}, "sweep is 'beta'"),
        ({"recipe": "demo", "costs": {"teacher": -1}}, r"costs\.teacher is -1"),
        ("nowhere.yaml", "does not exist"),
    ],
)
def test_a_study_that_cannot_be_is_refused(
    tiny_store: Store, tmp_path: Path, study: dict[str, object] | str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prunekd.run_sweep(study, tiny_store, out=tmp_path / "s", device="cpu")
    assert not (tmp_path / "s").exists()


def test_a_report_returns_and_writes_what_the_verb_does(sweep: prunekd.Sweep, tmp_path: Path) -> None:
    def verb(*words: object) -> str:
        done = CliRunner().invoke(main, ["report", str(sweep.path), *map(str, words)])
        assert done.exit_code == 0, done.output
        return done.stdout

    read = prunekd.report(sweep.path)
    assert read.files == ()
    for kind in ("md", "csv", "json"):
        assert read.text(kind) == verb("--format", kind)
        prunekd.report(str(sweep.path), tmp_path / f"alone.{kind}")
        assert (tmp_path / f"alone.{kind}").read_text() == read.text(kind)
    verb("--out", tmp_path / "verb.html")
    written = prunekd.report([sweep.path], tmp_path / "api.html")
    assert [file.suffix for file in written.files] == [".png", ".md", ".csv", ".json", ".html"]
    for file in written.files:
        assert file.read_bytes() == (tmp_path / f"verb{file.suffix}").read_bytes()
    assert len(prunekd.report([sweep.path, sweep]).headlines) == 2 * len(read.headlines)
    with pytest.raises(ValueError, match="given twice"):
        prunekd.report([sweep.path, sweep], tmp_path / "both.html")
    with pytest.raises(ValueError, match="its suffix must be"):
        prunekd.report(sweep, tmp_path / "report.pdf")
    with pytest.raises(ValueError, match="is no text"):
        read.text("html")
