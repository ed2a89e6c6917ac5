"""prunekd.score, import_scores, merge_scores, make_labels, verify_labels: paths and objects alike."""

from pathlib import Path

import numpy as np
import pytest

import prunekd
from prunekd.api.labels import summarize_labels, verify_labels
from prunekd.api.scoring import import_scores, merge_scores
from prunekd.store import Store
from prunekd.training.recipe import as_recipe


def test_scores_by_path_and_by_object_are_the_same(tiny_store: Store, teacher_run: prunekd.Run, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    by_path = prunekd.score(str(tiny_store.path), str(teacher_run.path), device="cpu")
    teacher = prunekd.open_teacher(teacher_run.path, tiny_store, precision="fp32", device="cpu")
    by_object = prunekd.score(
        tiny_store, teacher, names=["el2n", "teacher_ce"], batch_size=32,
        progress=lambda count, total: done.append((count, total)),
    )  # fmt: skip
    assert done == [(32, 96), (64, 96), (96, 96)]
    np.testing.assert_allclose(by_object["el2n"], by_path["el2n"], rtol=1e-4, atol=1e-6)
    assert set(by_path.columns) > set(by_object.columns)
    assert by_path.provenance["teacher"] == teacher.describe()
    assert by_path.provenance["teacher"]["dtype"] == "float32"
    seen = prunekd.score(tiny_store, teacher, view="train", recipe="demo", seed=3, names="el2n")
    assert not np.array_equal(seen["el2n"], by_object["el2n"])
    with pytest.raises(ValueError, match="view is train and no recipe"):
        prunekd.score(tiny_store, teacher, view="train")
    with pytest.raises(ValueError, match="view is 'centre'"):
        prunekd.score(tiny_store, teacher, view="centre")


def test_scores_are_imported_and_averaged(
    tiny_store: Store, teacher_run: prunekd.Run, tmp_path: Path, told: list[str]
) -> None:
    rows = "".join(f"{sample},{sample / 7}\n" for sample in range(96))
    (tmp_path / "mine.csv").write_text(f"id,hardness\n{rows}")
    mine = import_scores(tiny_store.path, tmp_path / "mine.csv", "hardness", key="id")
    np.testing.assert_allclose(mine["hardness"], np.arange(96) / 7)
    assert "96 samples matched" in "\n".join(told)
    scores = prunekd.score(tiny_store, teacher_run.path, device="cpu")
    scores.save(tmp_path / "a.parquet")
    mean = merge_scores(tiny_store, [scores, tmp_path / "a.parquet"])
    np.testing.assert_allclose(mean["el2n"], scores["el2n"], rtol=1e-6)
    with pytest.raises(ValueError, match="two files or more"):
        merge_scores(tiny_store, [scores])


def test_labels_are_made_opened_trained_with_and_verified(
    tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path, told: list[str]
) -> None:
    labels = prunekd.make_labels(
        tiny_store, teacher_run.path, recipe="demo", settings=small, out=tmp_path / "labels", views=2, topk=3, seed=7,
        temperature=2.0, device="cpu",
    )  # fmt: skip
    assert (labels.views, labels.seed, labels.topk, labels.temperature) == (2, 7, 3, 2.0)
    assert "96 samples x 2 views of seed 7, the top 3 of 4 logits" in told
    checked = verify_labels(tiny_store, labels, records=20, device="cpu")
    assert checked.records == 20
    assert checked.worst < 0.1
    summary = summarize_labels(labels, as_recipe("demo", small), runs=2)
    assert (summary.records, summary.break_even["pays"]) == (192, True)
    runs = [
        prunekd.train(tiny_store, recipe="demo", settings=small, labels=given, out=tmp_path / name, device="cpu")
        for name, given in (("object", labels), ("path", str(tmp_path / "labels")))
    ]
    assert runs[0].top1 == runs[1].top1
    assert [run.result["arm"] for run in runs] == ["kd_cached"] * 2
    with pytest.raises(ValueError, match="both a teacher and cached soft labels"):
        prunekd.train(
            tiny_store, recipe="demo", settings=small, labels=labels, teacher=teacher_run.path, out=tmp_path / "both",
            device="cpu",
        )  # fmt: skip


def test_labels_of_a_module_are_verified_with_that_module(
    tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path
) -> None:
    card = teacher_run.card
    teacher = prunekd.open_teacher(
        teacher_run.load_model(), tiny_store, mean=card.mean, std=card.std, classes=card.classes, device="cpu"
    )
    half = prunekd.select(tiny_store, "random", keep=0.5)
    made = prunekd.make_labels(
        tiny_store, teacher, recipe="demo", settings=small, out=tmp_path / "labels", views=1, subset=half
    )
    assert np.array_equal(made.ids, np.sort(half.ids))
    with pytest.raises(ValueError, match=r"made by a module \(CifarResNet\)"):
        verify_labels(tiny_store, made, device="cpu")
    assert verify_labels(tiny_store, made.path, teacher=teacher, records=10).records == 10
