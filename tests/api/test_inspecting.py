"""Inspecting and comparing through the public face: figures against NumPy's, paths and objects alike."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import prunekd
from prunekd.api.inspecting import compare, inspect_run, inspect_scores, inspect_store, inspect_subset, kind_of
from prunekd.cli import main
from prunekd.common.files import write_json
from prunekd.pruning.parquet import made_for
from prunekd.store import Store


def printed(*words: object) -> dict[str, object]:
    done = CliRunner().invoke(main, [*(str(word) for word in words), "--json"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert isinstance(values, dict)
    return values


@pytest.fixture
def scores(tiny_store: Store) -> prunekd.Scores:
    split = tiny_store.split("train")
    values = np.linspace(0, 1, len(split)).astype(np.float32)
    return prunekd.Scores(
        ids=split.ids, labels=split.labels, columns={"el2n": values}, definitions={"el2n": "el2n@1"},
        hard_ends={"el2n": "high"}, class_std=np.ones(4), provenance=made_for(tiny_store, "train"),
    )  # fmt: skip


@pytest.fixture
def files(tiny_store: Store, scores: prunekd.Scores, tmp_path: Path) -> tuple[Path, Path]:
    scores.save(tmp_path / "scores.parquet")
    prunekd.select(tiny_store, "hardest", keep=0.25, scores=scores, score="el2n").save(tmp_path / "quarter.parquet")
    return tmp_path / "scores.parquet", tmp_path / "quarter.parquet"


def test_what_a_path_is(tiny_store: Store, files: tuple[Path, Path], tmp_path: Path) -> None:
    write_json(tmp_path / "run/run.json", {})
    paths = (tiny_store.path, *files, tmp_path / "run")
    assert [kind_of(path) for path in paths] == ["store", "scores", "subset", "run"]
    assert kind_of(str(tiny_store.path)) == "store"
    with pytest.raises(ValueError, match=r"neither store\.json nor run\.json"):
        kind_of(tmp_path)


def test_a_stores_figures(tiny_store: Store) -> None:
    facts = inspect_store(str(tiny_store.path))
    train = facts.splits["train"]
    assert (train.samples, train.jpeg, train.raw) == (96, 0, 96)
    assert train.class_sizes == np.bincount(tiny_store.split("train").labels).tolist()
    assert (train.width.min, train.width.median, train.width.max) == (12, 12, 12)
    assert train.file_bytes == (tiny_store.path / "train.beton").stat().st_size
    assert (facts.compaction, facts.damaged) == (None, None)
    assert facts.to_dict() == inspect_store(tiny_store).to_dict() == printed("inspect", tiny_store.path)


def test_damage_is_found_in_every_split(tiny_store: Store, tmp_path: Path) -> None:
    shutil.copytree(tiny_store.path, tmp_path / "store")
    for name, row in (("train", 7), ("val", 3)):
        split = tiny_store.split(name)
        with (tmp_path / "store" / f"{name}.beton").open("r+b") as file:
            file.seek(int(split.pointers[row]))
            first = file.read(1)
            file.seek(int(split.pointers[row]))
            file.write(bytes([first[0] ^ 1]))
    seen: list[tuple[str, int, int]] = []
    damaged = inspect_store(tmp_path / "store", verify=True, progress=lambda *done: seen.append(done)).damaged
    assert damaged is not None
    assert [(one.split, one.id) for one in damaged] == [("train", 7), ("val", 3)]
    assert [one.key for one in damaged] == [tiny_store.split("train").keys()[7], tiny_store.split("val").keys()[3]]
    assert {last for last in seen if last[1] == last[2]} == {("train", 96, 96), ("val", 32, 32)}
    assert inspect_store(tiny_store, verify=True).damaged == []


def test_the_cost_of_compacting_is_that_of_the_fraction(tiny_store: Store, files: tuple[Path, Path]) -> None:
    subset = prunekd.select(tiny_store, "random", keep=0.5)
    cost = inspect_store(tiny_store, subset=subset, keep=0.25, epochs=30, memory=1 << 30).compaction
    same = inspect_store(tiny_store, subset=prunekd.select(tiny_store, "random", keep=0.25), epochs=30, memory=1 << 30)
    assert cost is not None
    assert cost == same.compaction
    assert (cost.kept, cost.kept_bytes, cost.epochs) == (24, 24 * 432, 30)


def test_scores_and_subsets_are_given_as_files_or_objects(
    tiny_store: Store, scores: prunekd.Scores, files: tuple[Path, Path]
) -> None:
    scores_file, subset_file = files
    subset = prunekd.select(tiny_store, "hardest", keep=0.25, scores=scores, score="el2n")
    values = inspect_scores(scores).columns["el2n"].values
    assert (values.min, values.median, values.max) == (0, pytest.approx(0.5), 1)
    assert inspect_scores(str(scores_file)).to_dict() == inspect_scores(scores).to_dict()
    facts = inspect_subset(subset, store=tiny_store, scores=scores)
    assert facts.mean_scores is not None
    assert facts.mean_scores["el2n"].kept == pytest.approx(np.linspace(0, 1, 96)[72:].mean())
    assert facts.class_names == tiny_store.classes
    by_path = inspect_subset(subset_file, store=tiny_store.path, scores=scores_file).to_dict()
    assert facts.to_dict() == by_path
    words = ("inspect", subset_file, "--store", tiny_store.path, "--scores", scores_file)
    assert {"path": str(subset_file), **by_path} == printed(*words)


def test_a_contact_sheet_needs_the_store(tiny_store: Store, files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the subset's store too"):
        inspect_subset(files[1], out=tmp_path / "sheet.png")
    facts = inspect_subset(files[1], store=tiny_store, out=str(tmp_path / "sheet.png"))
    assert facts.contact_sheet == tmp_path / "sheet.png"
    assert Image.open(tmp_path / "sheet.png").width > 1000


def test_files_of_different_stores_are_named(scores: prunekd.Scores, files: tuple[Path, Path], tmp_path: Path) -> None:
    foreign = replace(scores, provenance={**scores.provenance, "fingerprint": "0" * 64})
    with pytest.raises(ValueError, match=r"the scores was made for .*quarter\.parquet for"):
        inspect_subset(files[1], scores=foreign)


def test_a_run_that_is_being_written(tmp_path: Path) -> None:
    write_json(tmp_path / "run/run.json", {"alpha": 0.5, "recipe": {}})
    lines = ['{"kind": "train", "step": 1}', '{"kind": "epoch", "step": 2, "epoch": 1}', '{"kind": "epo']
    (tmp_path / "run/metrics.jsonl").write_text("\n".join(lines))
    for step in (10, 9):
        (tmp_path / f"run/checkpoints/step-{step}").mkdir(parents=True)
    facts = inspect_run(str(tmp_path / "run"))
    assert (facts.finished, facts.result, facts.run) == (False, None, {"alpha": 0.5, "recipe": {}})
    assert facts.epochs == [{"kind": "epoch", "step": 2, "epoch": 1}]
    assert facts.checkpoints == ["step-9", "step-10"]
    assert facts.to_dict() == printed("inspect", tmp_path / "run")


def test_subsets_are_compared_as_files_or_by_name(tiny_store: Store, tmp_path: Path) -> None:
    half, tenth = (prunekd.select(tiny_store, "random", keep=keep) for keep in (0.5, 0.1))
    for name, subset in (("half", half), ("tenth", tenth)):
        subset.save(tmp_path / f"{name}.parquet")
    paths = [tmp_path / "half.parquet", tmp_path / "tenth.parquet"]
    facts = compare(paths)
    assert facts.pairs[0][1].shared == len(tenth)
    assert facts == compare({"half": half, "tenth": str(paths[1])})
    assert facts.to_dict() == printed("compare", *paths)
    drawn = compare(paths, out=tmp_path / "c.png", sheets=str(tmp_path / "sheets"), store=tiny_store)
    assert drawn.picture == tmp_path / "c.png"
    assert drawn.contact_sheets == [tmp_path / "sheets/half.png", tmp_path / "sheets/tenth.png"]
    assert all(path.exists() for path in (drawn.picture, *drawn.contact_sheets))


def test_files_of_one_name_are_shown_under_their_paths(tiny_store: Store, tmp_path: Path) -> None:
    paths = [str(tmp_path / folder / "s.parquet") for folder in ("a", "b")]
    for path in paths:
        prunekd.select(tiny_store, "random", keep=0.5).save(path)
    assert compare(paths).names == paths
    with pytest.raises(ValueError, match="two subsets or more"):
        compare(paths[:1])
    with pytest.raises(ValueError, match="needs --store"):
        compare(paths, sheets=tmp_path)
