"""The page in a browser, its size, several sweeps side by side, the claims, and the other formats."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from prunekd.cli import main
from prunekd.reporting.aggregate import summarize_sweep
from prunekd.reporting.claims import check_claims
from prunekd.reporting.results import read_sweep
from prunekd.reporting.style import DARK, LIGHT, arm_role
from reporting.browser import Browser, chromium
from reporting.synthetic import COSTS, EPOCHS, FULL_SECONDS, write_big_sweep
from support import require_program

READY = "document.documentElement.dataset.ready !== undefined"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sweeps of 64 runs, one of them timed only, and the page of each and of both."""
    folder = tmp_path_factory.mktemp("pages")
    write_big_sweep(folder / "trained")
    write_big_sweep(folder / "timed", timed=True)
    for page, sweeps in (("trained", ["trained"]), ("both", ["trained", "timed"])):
        report("--out", str(folder / f"{page}.html"), *(str(folder / name) for name in sweeps))
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(require_program("chromium"), tmp_path_factory.mktemp("profile")) as found:
        yield found


def report(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["report", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_page_of_sixty_runs_stays_small(folder: Path) -> None:
    assert len(list((folder / "trained/runs").iterdir())) >= 60
    assert (folder / "trained.html").stat().st_size <= 6_000_000


@pytest.mark.parametrize("page", ["trained", "both"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_loads_without_complaints_requests_or_overflow(
    browser: Browser, folder: Path, page: str, width: int, dark: bool
) -> None:
    file = folder / f"{page}.html"
    browser.open(file, width=width, dark=dark)
    browser.wait_for(READY)
    figures = browser.value("document.querySelectorAll('figure').length")
    browser.value(
        "(async () => { for (const figure of document.querySelectorAll('figure')) {"
        " figure.scrollIntoView(); await new Promise((done) => setTimeout(done, 40)); } })()"
    )
    browser.wait_for(f"document.querySelectorAll('.chart .main-svg').length >= {figures}")
    assert browser.complaints == []
    assert browser.requests == [file.as_uri()]
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value("getComputedStyle(document.body).backgroundColor") == (
        "rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)"
    )
    # the drawn figures have made room for the interactive ones
    assert browser.value("[...document.querySelectorAll('figure > svg')].every((s) => s.style.display === 'none')")


def test_values_show_under_the_pointer_and_arms_can_be_hidden(browser: Browser, folder: Path) -> None:
    browser.open(folder / "trained.html", width=1280)
    browser.wait_for(READY)
    browser.value("document.getElementById('accuracy0').scrollIntoView({block: 'center'})")
    browser.wait_for("document.querySelectorAll('#accuracy0 .chart .point').length > 0")
    box = browser.value(
        "(() => { const b = document.querySelector('#accuracy0 .chart .point').getBoundingClientRect();"
        " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    browser.move(box[0] - 40, box[1] - 40)
    browser.move(*box)
    browser.wait_for("document.querySelectorAll('#accuracy0 .hoverlayer text').length > 0")
    assert "top-1" in browser.value("document.querySelector('#accuracy0 .hoverlayer').textContent")

    points = "document.querySelectorAll('#accuracy0 .chart .point').length"
    before = browser.value(points)
    browser.value("document.querySelector('#series button').click()")
    browser.wait_for(f"{points} < {before}")
    assert browser.value("document.querySelector('#series button').ariaPressed") == "false"
    browser.value("document.querySelector('#series button').click()")
    browser.wait_for(f"{points} === {before}")
    assert browser.complaints == []


def test_without_scripts_the_drawn_figures_show(browser: Browser, folder: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(folder / "trained.html", width=1280)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    shown = "[...document.querySelectorAll('figure > svg')].filter((s) => s.getBoundingClientRect().height > 100)"
    assert browser.value(f"{shown}.length") == browser.value("document.querySelectorAll('figure').length")
    assert browser.value("document.querySelectorAll('.chart .main-svg').length") == 0


def test_every_output_of_a_timed_sweep_says_that_it_is_extrapolated(folder: Path) -> None:
    timed = str(folder / "timed")
    assert "extrapolated from 8 batches" in report(timed, "--format", "md")
    assert "extrapolated from 8 batches" in json.loads(report(timed, "--format", "json"))["extrapolated"]
    rows = list(csv.DictReader(io.StringIO(report(timed, "--format", "csv"))))
    assert {row["extrapolated"] for row in rows} == {"True"}
    assert "extrapolated from 8 batches" in (folder / "both.html").read_text()
    assert "extrapolated from" not in (folder / "trained.html").read_text()


def test_all_formats_hold_every_run(folder: Path) -> None:
    both = [str(folder / "trained"), str(folder / "timed")]
    rows = list(csv.DictReader(io.StringIO(report(*both, "--format", "csv"))))
    names = {(name, run.name) for name in ("trained", "timed") for run in (folder / name / "runs").iterdir()}
    assert {(row["sweep"], row["name"]) for row in rows} == names
    told = json.loads(report(*both, "--format", "json"))
    assert [len(sweep["runs"]) for sweep in told["sweeps"]] == [64, 64]
    text = report(*both, "--format", "md")
    assert text.count("# ") == 2
    assert text.count("\n| KD, medium |") == 8
    refused = CliRunner().invoke(main, ["report", both[0], "--format", "csv", "--out", str(folder / "x.html")])
    assert refused.exit_code == 2
    assert "must end in .csv" in refused.stderr


def test_break_even_counts_scores_labels_and_compaction(folder: Path) -> None:
    summary = summarize_sweep(read_sweep(folder / "trained"))
    cached = summary.find("kd_cached", 0.5, "random")
    assert cached is not None
    # the full cached run needs labels of all samples and, reshaping, scores; the pruned one labels of its half
    assert dict(cached.one_off) == {
        "score": COSTS["score"],
        "select": COSTS["select"],
        "labels": 0.5 * COSTS["labels"],
        "compact": COSTS["compact"],
    }
    assert cached.break_even_arm is None  # fewer labels to make than the full run's: nothing to pay back
    medium = summary.find("plain", 0.5, "medium")
    assert medium is not None
    saved = 1.005 * EPOCHS * FULL_SECONDS["none"] / 2 - COSTS["select"]
    assert medium.break_even_arm == pytest.approx((COSTS["score"] + COSTS["compact"]) / saved)


def test_corrupt_samples_and_the_sweep_s_own_processes_are_in_the_report(tmp_path: Path) -> None:
    sweep = write_big_sweep(tmp_path / "sweep", seeds=1)
    for name, counts in (("kd-random-keep0.5-seed0", (7, 0)), ("plain-all-keep1-seed0", (2, 4))):
        file = sweep / "runs" / name / "result.json"
        values = json.loads(file.read_text())
        file.write_text(json.dumps(values | dict(zip(("replaced", "skipped"), counts, strict=True))))
    (sweep / "ledger.json").write_text(json.dumps({"processes": [{"seconds": {"imports": 3.25, "step": 1000.0}}]}))
    page = tmp_path / "page.html"
    report(str(sweep), "--out", str(page))
    assert "9 replaced by others, 4 left out" in page.read_text()
    assert "<td>3.25</td><td>1,000</td><td>1,003</td>" in page.read_text()
    with page.with_suffix(".csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert (rows["plain-all-keep1-seed0"]["replaced"], rows["plain-all-keep1-seed0"]["skipped"]) == ("2", "4")
    assert json.loads(page.with_suffix(".json").read_text())["processes"] == [{"imports": 3.25, "step": 1000.0}]


def test_arms_of_one_s_own_have_hues_that_no_known_arm_shown_has() -> None:
    known = ("plain", "kd", "kd_cached", "random", "medium", "infobatch", "rs2", "equal_time")
    roles = [arm_role(arm, (*known, "hot", "cold", "wide")) for arm in (*known, "hot", "cold", "wide")]
    assert len(set(roles)) == len(roles)
    assert {*roles} <= {*LIGHT} == {*DARK}


def claims_of(path: Path, **changes: Any) -> dict[str, tuple[str, str]]:
    claims = check_claims(summarize_sweep(read_sweep(write_big_sweep(path, **changes))))
    return {claim.text: (claim.verdict, claim.measured) for claim in claims}


def test_claims_hold_fail_or_stay_open_by_the_noise(tmp_path: Path) -> None:
    found = claims_of(tmp_path / "many", seeds=5)
    helps = next(value for text, value in found.items() if "beats training on labels alone" in text)
    assert helps[0] == "held"
    random = next(value for text, value in found.items() if "random pruning is as good" in text)
    assert random[0] == "did not hold"  # medium wins at 0.7, 0.5 and 0.3
    assert "keep 0.1: +1." in random[1]
    one = claims_of(tmp_path / "one", seeds=1)
    assert {verdict for verdict, _ in one.values()} == {"not decided"}
    half = next(value for text, value in one.items() if "half the training time" in text)
    assert half[1].startswith("0.50x the training time of KD on all data (1 seed)")
    timed = claims_of(tmp_path / "timed", seeds=2, timed=True)
    assert all(verdict in ("not decided", "not tested") for verdict, _ in timed.values())
