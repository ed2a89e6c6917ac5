"""Sweeps with known numbers: what the report says of them."""

import csv
import json
import math
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from prunekd.cli import main
from prunekd.reporting.aggregate import summarize_sweep
from prunekd.reporting.claims import check_claims
from prunekd.reporting.headline import headline
from prunekd.reporting.page import render_page
from prunekd.reporting.results import read_sweep

SLOPE, CONSTANT, EPOCHS, TOTAL = 8.0, 0.5, 10, 1000
VAL = 1_000_000  # so many that accuracies are exact
TOP1 = {("plain", 1.0): 0.90, ("plain", 0.5): 0.84, ("kd", 1.0): 0.92, ("kd", 0.5): 0.91, ("equal_time", 0.5): 0.89}


def result(arm: str, keep: float, seed: int, policy: str, val: int = VAL) -> dict[str, Any]:
    kept = TOTAL if arm == "equal_time" else round(keep * TOTAL)
    epochs = round(EPOCHS * keep) if arm == "equal_time" else EPOCHS
    slow = 1.5 if arm != "plain" else 1.0
    epoch = slow * (SLOPE * kept / TOTAL + CONSTANT)
    train = epochs * epoch * (1 + 0.01 * seed)
    return {
        "name": f"{arm}-{policy}-keep{keep:g}-seed{seed}",
        "arm": arm,
        "policy": policy,
        "keep": keep,
        "seed": seed,
        "epochs": epochs,
        "samples_kept": kept,
        "samples_total": TOTAL,
        "top1": TOP1[arm, keep] + 0.002 * (seed - 1),
        "best_top1": TOP1[arm, keep] + 0.01,
        "val_samples": val,
        "train_seconds": train,
        "epoch_seconds": [epoch] * epochs,
        "eval_seconds": 1.0,
        "images_per_second": kept * epochs / train,
        "data_wait_share": 0.05,
        "bytes_read": 1100 * kept * epochs,
        "payload_bytes": 1000 * kept * epochs,
        "alpha": None if arm == "plain" else 0.9,
        "temperature": None if arm == "plain" else 4.0,
        "ledger": {
            "wall_seconds": train + 1.5,
            "seconds": {"step": 0.95 * train, "data_wait": 0.05 * train, "eval": 1.0, "other": 0.5},
            "counters": {"bytes_read": 1100 * kept * epochs},
        },
    }


def write_sweep(
    folder: Path, seeds: int = 3, leave_out: tuple[str, ...] = (), medium: bool = False, val: int = VAL
) -> Path:
    runs = []
    for seed in range(seeds):
        for arm, keep in TOP1:
            pruned = keep < 1 and arm != "equal_time"
            policies = ("random", "medium") if pruned and medium else ("random",) if pruned else ("all",)
            runs += [result(arm, keep, seed, policy, val) for policy in policies]
    for run in runs:
        if run["name"] not in leave_out:
            (folder / "runs" / run["name"]).mkdir(parents=True)
            (folder / "runs" / run["name"] / "result.json").write_text(json.dumps(run))
    facts = {
        "format": "prunekd-sweep",
        "version": 1,
        "store": {"path": "store", "fingerprint": "f" * 64, "train": TOTAL, "val": val, "classes": 5},
        "recipe": {"epochs": EPOCHS, "model": {"name": "<b>&net"}, "text": "</script><!-- x"},
        "arms": ["plain", "kd", "equal_time"],
        "policies": ["random"],
        "keeps": [1.0, 0.5],
        "seeds": list(range(seeds)),
        "teacher": {"spec": "teacher", "model": "resnet"},
        "reshaping": False,
        "costs": {"score": {"seconds": 12.0}, "select": {"seconds": 0.25, "count": 3}},
        "machine": {"processor": "a <processor>", "cores": 2, "gpus": [], "versions": {"torch": "2"}, "command": "x"},
        "runs": [run["name"] for run in runs],
    }
    (folder / "sweep.json").write_text(json.dumps(facts))
    return folder


def test_aggregates_are_what_statistics_says(tmp_path: Path) -> None:
    summary = summarize_sweep(read_sweep(write_sweep(tmp_path, medium=True)))
    group = summary.find("kd", 0.5, "random")
    assert group is not None
    top1 = [0.91 + 0.002 * (seed - 1) for seed in range(3)]
    assert group.top1 is not None
    assert group.top1.mean == pytest.approx(statistics.mean(top1))
    assert group.top1.sd == pytest.approx(statistics.stdev(top1))
    assert group.top1.n == 3
    assert group.speedup_training is not None
    assert group.speedup_training.mean == pytest.approx((SLOPE + CONSTANT) / (SLOPE / 2 + CONSTANT))
    assert group.ideal == pytest.approx(2.0)
    assert group.read_amplification is not None
    assert group.read_amplification.mean == pytest.approx(1.1)
    plain = EPOCHS * (SLOPE + CONSTANT)
    mine = EPOCHS * 1.5 * (SLOPE / 2 + CONSTANT)
    expected = [plain * (1 + 0.01 * s) / (mine * (1 + 0.01 * s) + 0.25) for s in range(3)]
    assert group.speedup_vs_plain is not None
    assert group.speedup_vs_plain.mean == pytest.approx(statistics.mean(expected))  # random pays for selection alone
    ranked = summary.find("kd", 0.5, "medium")
    assert ranked is not None
    assert dict(ranked.one_off) == {"score": 12.0, "select": 0.25}
    saved = statistics.mean(EPOCHS * 1.5 * SLOPE / 2 * (1 + 0.01 * s) for s in range(3)) - 0.25
    assert ranked.break_even_arm == pytest.approx(12.0 / saved)


def test_the_fit_recovers_slope_and_constant(tmp_path: Path) -> None:
    fits = {fit.arm: fit for fit in summarize_sweep(read_sweep(write_sweep(tmp_path))).fits}
    assert fits["plain"].slope == pytest.approx(SLOPE)
    assert fits["plain"].constant == pytest.approx(CONSTANT)
    assert fits["kd"].constant == pytest.approx(1.5 * CONSTANT)


def test_the_equal_time_control_is_compared(tmp_path: Path) -> None:
    (found,) = summarize_sweep(read_sweep(write_sweep(tmp_path))).equal_time
    assert found.difference == pytest.approx(2.0)
    assert found.spread == pytest.approx(100 * math.hypot(0.002, 0.002))
    assert found.verdict == "better"


def test_a_difference_within_the_noise_is_not_decided_anywhere(tmp_path: Path) -> None:
    """Of 400 validation images, and of 0.92 and 0.91 correct, chance alone leaves 2 points."""
    summary = summarize_sweep(read_sweep(write_sweep(tmp_path / "few", val=400)))
    full, half, control = (summary.find(*key) for key in (("kd", 1.0), ("kd", 0.5), ("equal_time", 0.5)))
    assert full is not None
    assert half is not None
    assert control is not None
    over = half.top1_over(full)
    assert over is not None
    assert over.points == pytest.approx(-1.0)
    assert over.seeds == pytest.approx(100 * math.hypot(0.002, 0.002))
    sampling = 100 * math.sqrt((0.92 * 0.08 + 0.91 * 0.09) / 400)
    assert over.sampling == pytest.approx(sampling)
    assert over.noise == pytest.approx(math.hypot(over.seeds, sampling))
    assert not over.decided
    first, *others = headline(summary)
    assert "accuracy: not decided (-1.0 points, noise 2.0: seeds 0.3, validation split 2.0)" in first
    assert any("for the same time: not decided (+2.0 points, noise 2.1" in line for line in others)
    (found,) = summary.equal_time
    assert found.verdict == "not decided"
    (helps,) = [claim for claim in check_claims(summary) if "labels alone at every ratio" in claim.text]
    assert helps.verdict == "held"  # 7 points are more than the noise
    page = render_page([summary])
    assert "<td>not decided</td>" in page
    many = summarize_sweep(read_sweep(write_sweep(tmp_path / "many", medium=True, val=400)))
    (random,) = [claim for claim in check_claims(many) if "random pruning is as good" in claim.text]
    assert random.verdict == "not decided"  # as good as the other, within the noise
    one = headline(summarize_sweep(read_sweep(write_sweep(tmp_path / "one", seeds=1))))
    assert "accuracy: not decided (-1.0 points, one seed)" in one[0]


def test_the_headline_says_what_was_found_and_no_more(tmp_path: Path) -> None:
    whole = " ".join(headline(summarize_sweep(read_sweep(write_sweep(tmp_path / "a")))))
    assert "0.53x the time of keep 1" in whole
    assert "lost 1.0 point" in whole
    assert "3 seeds" in whole
    assert "Pruning against distilling on all data for the same time: better, by 2.0 points" in whole
    one = " ".join(headline(summarize_sweep(read_sweep(write_sweep(tmp_path / "b", seeds=1)))))
    assert "single seed" in one
    assert "spread" not in one
    gone = tuple(f"kd-all-keep1-seed{s}" for s in range(3))
    missing = " ".join(headline(summarize_sweep(read_sweep(write_sweep(tmp_path / "c", leave_out=gone)))))
    assert "3 of 15 runs are missing" in missing
    assert "no speed-up can be given" in missing


class Tags(HTMLParser):
    """Checks that tags balance, and collects what would be requested."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.requests: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br", "img", "hr", "input"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data") and value and not value.startswith("#"):
                self.requests.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_the_page_is_whole_escaped_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    missing = ("kd-random-keep0.5-seed2",)
    page = render_page([summarize_sweep(read_sweep(write_sweep(tmp_path, leave_out=missing)))])
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.requests == []
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    assert not re.search(r"url\((?!#)|@import", style[1])
    assert "a &lt;processor&gt;" in page
    assert "&lt;b&gt;&amp;net" in page
    assert "kd-random-keep0.5-seed2" in page
    assert "</script><!--" not in page
    assert page.split("<script", 1)[0].count("<svg") == 7
    assert "prefers-color-scheme:dark" in page


def test_the_command_writes_every_number(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep")
    out = tmp_path / "out" / "page.html"
    done = CliRunner().invoke(main, ["report", str(sweep), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().splitlines()[-1] == str(out)
    assert out.with_suffix(".png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with out.with_suffix(".csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert len(rows) == 15
    row = rows["kd-random-keep0.5-seed1"]
    assert float(row["top1"]) == pytest.approx(0.91)
    assert float(row["train_seconds"]) == pytest.approx(result("kd", 0.5, 1, "random")["train_seconds"])
    assert float(row["ledger_eval"]) == 1.0
    told = json.loads(out.with_suffix(".json").read_text())
    assert len(told["runs"]) == 15
    group = next(g for g in told["groups"] if (g["arm"], g["keep"]) == ("kd", 0.5))
    assert group["top1"]["n"] == 3
    assert told["sweep"]["store"]["train"] == TOTAL
    assert np.isfinite(told["fits"][0]["slope"])


@pytest.mark.parametrize(
    ("field", "value"), [("top1", 1.7), ("keep", 0), ("train_seconds", -1), ("epochs", "ten"), ("name", "other")]
)
def test_impossible_results_are_named_with_their_file(tmp_path: Path, field: str, value: object) -> None:
    sweep = write_sweep(tmp_path)
    file = sweep / "runs/kd-random-keep0.5-seed0/result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(ValueError, match=rf"result\.json.*{field}"):
        read_sweep(sweep)
    file.write_text("{")
    with pytest.raises(ValueError, match=r"kd-random-keep0\.5-seed0"):
        read_sweep(sweep)
