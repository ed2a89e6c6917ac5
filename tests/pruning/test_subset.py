"""Selection end to end on files: counts, provenance, round trips, and the mistakes users make."""

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunekd.pruning import Subset, as_subset, read_subset, select, write_subset
from prunekd.pruning.parquet import made_for
from prunekd.pruning.policies import POLICIES
from prunekd.pruning.scores import Scores, read_scores, write_scores
from prunekd.pruning.scores.features import describe_features
from prunekd.store.jobs.compact import compact
from pruning.stores import a_store, store_of


def scores_of(store, seed=0, more=(), **provenance):
    rng = np.random.default_rng(seed)
    part = store.split("train")
    count = len(part)
    return Scores(
        ids=part.ids,
        labels=part.labels,
        columns={
            name: rng.random(count).astype(np.float32)
            for name in ("teacher_ce", "el2n", "margin", "teacher_std", *more)
        },
        definitions={n: f"{n}@1" for n in ("teacher_ce", "el2n", "margin", "teacher_std", *more)},
        hard_ends={"teacher_ce": "high", "el2n": "high", "margin": "low", **dict.fromkeys(more, "high")},
        class_std=np.array([1.0, 2.5, np.nan]),
        provenance={
            "fingerprint": store.fingerprint,
            "store": {"path": str(store.path), "classes": len(store.classes)},
            "split": "train",
            "teacher": {"model": "resnet8"},
            "view": {"kind": "center", "scale": (0.1, 1.0)},
            "seed": 3,
            **provenance,
        },
    )


MORE = ("moderate", "dual", "p_mean")


def features_of(store, folder):
    """A features file in order of id, whatever the order of the store."""
    values = np.sin(np.sort(store.split("train").ids)[:, None] * np.array([1.0, 2.3, 0.7])).astype(np.float16)
    np.save(Path(folder) / "features.npy", values)
    return Path(folder) / "features.npy"


@pytest.mark.parametrize("policy", [name for name, policy in POLICIES.items() if "keep" not in policy.needs])
@settings(max_examples=15)
@given(seed=st.integers(0, 5), count=st.integers(6, 80))
def test_subsets_are_nested_over_all_ratios(policy, seed, count):
    store = a_store(count, seed)
    parameters = {"window": {"low": 0.0, "high": 1.0}, "ccs": {"beta": 0.0}}.get(policy)
    with tempfile.TemporaryDirectory() as folder:
        given = {"scores": scores_of(store, seed, MORE), "features": features_of(store, folder)}
        ratios = (0.5, 0.55, 0.62, 0.8, 0.93, 1.0)
        subsets = [select(store, policy, keep, seed, parameters=parameters, **given) for keep in ratios]
    whole = subsets[-1].ids.tolist()
    assert sorted(whole) == store.split("train").ids.tolist() or POLICIES[policy].default_balance == "quota"
    smaller: set[int] = set()
    for subset in subsets:
        assert subset.ids.tolist() == whole[: len(subset)]
        assert smaller <= set(subset.ids.tolist())
        smaller = set(subset.ids.tolist())
        assert subset.info["kept"] == len(subset) == len(smaller)
        assert sum(subset.info["class_counts"]) == len(subset)


def test_info_says_where_the_subset_came_from():
    store = a_store(60)
    subset = select(store, "medium", 0.5, 7, scores=scores_of(store), score="el2n")
    part = store.split("train")
    label_of = dict(zip(part.ids.tolist(), part.labels.tolist(), strict=True))
    kept = [label_of[i] for i in subset.ids.tolist()]
    assert subset.info == {
        "policy": "medium",
        "parameters": {},
        "balance": "quota",
        "score": "el2n",
        "score_definition": "el2n@1",
        "scored_by": {"teacher": {"model": "resnet8"}, "view": {"kind": "center", "scale": [0.1, 1.0]}, "seed": 3},
        "seed": 7,
        "keep": 0.5,
        "kept": len(kept),
        "total": 60,
        "class_counts": [kept.count(c) for c in range(3)],
        "class_totals": [part.labels.tolist().count(c) for c in range(3)],
        "split": "train",
        "fingerprint": "f" * 64,
        "store": {"path": "/here/store", "classes": 3},
    }


def test_random_needs_and_records_no_score():
    store = a_store()
    subset = select(store, "random", 0.5, 1, scores=scores_of(store))
    assert subset.info["score"] is None
    assert subset.info["scored_by"] is None
    assert subset.ids.tolist() == select(store, "random", 0.5, 1).ids.tolist()
    assert subset.ids.tolist() != select(store, "random", 0.5, 2).ids.tolist()


def test_hardest_by_margin_takes_the_low_end():
    store = a_store()
    scores = scores_of(store)
    subset = select(store, "hardest", 0.25, scores=scores, score="margin")
    lowest = store.split("train").ids[np.argsort(scores.columns["margin"])[:15]]
    assert subset.ids.tolist() == lowest.tolist()
    subset = select(store, "easiest", 0.25, scores=scores, score="margin")
    assert subset.ids.tolist() == store.split("train").ids[np.argsort(-scores.columns["margin"])[:15]].tolist()


def test_scores_and_features_are_joined_by_id_not_by_row(tmp_path):
    store = a_store()
    given = {"scores": scores_of(store, 0, MORE), "features": features_of(store, tmp_path)}
    part = store.split("train")
    turned = store_of(part.ids[::-1].copy(), part.labels[::-1].copy())
    for policy in POLICIES:
        one = select(store, policy, 0.5, **given)
        other = select(turned, policy, 0.5, **given)
        assert one.ids.tolist() == other.ids.tolist()
        assert one.info == other.info


@pytest.mark.parametrize("keep", [0, -0.5, 1.5, float("nan")])
def test_keep_out_of_range_is_refused(keep):
    with pytest.raises(ValueError, match=r"keep must be a fraction in \(0, 1\], not"):
        select(a_store(), "random", keep)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "medum"}, "did you mean 'medium'"),
        ({"policy": "medium"}, "ranks by a score .teacher_ce. and no scores were given.*prunekd score /here/store"),
        ({"policy": "random", "balance": "even"}, "unknown balance 'even'"),
        ({"policy": "random", "score": "el2n"}, r"ranks by no score, so 'el2n' cannot be used"),
        ({"policy": "random", "seed": -1}, r"seed must be in \[0, 2\^64\), not -1"),
        ({"policy": "random", "seed": 2**64}, r"seed must be in \[0, 2\^64\)"),
        ({"policy": "random", "parameters": {"low": 1}}, "has no parameters"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        select(a_store(), keep=0.5, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score": "teacher_c"}, "unknown score 'teacher_c' .did you mean 'teacher_ce'"),
        ({"score": "teacher_std"}, "a statistic, not a difficulty; choose from: el2n, margin, teacher_ce"),
        ({"split": "val"}, "scores are of the split 'train', not 'val'"),
        ({"policy": "window", "parameters": {"lo": 0.1}}, "unknown parameter of policy window 'lo'"),
        ({"policy": "window", "keep": 0.8}, "offers only 30 of 60; keep at most 0.5"),
        ({"policy": "medium", "keep": 0.01}, "leaves no sample in a class"),
    ],
)
def test_bad_scores_and_parameters_are_refused(arguments, message):
    store = a_store()
    with pytest.raises(ValueError, match=message):
        select(store, **{"policy": "hardest", "keep": 0.5, "scores": scores_of(store), **arguments})


def test_scores_of_another_store_are_refused():
    scores = scores_of(a_store(fingerprint="a" * 64, path=Path("/there/other"), classes=("x", "y")))
    message = r"made for /there/other .2 classes, fingerprint aaaaaaaaaaaa., but is used with /here/store .3 classes"
    with pytest.raises(ValueError, match=message):
        select(a_store(), "hardest", 0.5, scores=scores)


def test_samples_without_a_score_are_named():
    store = a_store()
    scores = scores_of(store)
    part = replace(
        scores,
        ids=scores.ids[:-2],
        labels=scores.labels[:-2],
        columns={name: values[:-2] for name, values in scores.columns.items()},
    )
    with pytest.raises(
        ValueError,
        match=rf"no score for 2 samples, ids {store.split('train').ids[-2]}, {store.split('train').ids[-1]};",
    ):
        select(store, "hardest", 0.5, scores=part)


def test_subset_of_another_store_is_refused():
    subset = select(a_store(), "random", 0.5)
    subset.check(a_store(path=Path("/moved/store")))
    with pytest.raises(ValueError, match=r"made for /here/store .3 classes.*used with /there.*prunekd select /there"):
        subset.check(a_store(fingerprint="b" * 64, path=Path("/there")))


@pytest.mark.parametrize("weights", [None, np.array([1.0, 2.0, 0.5], dtype=np.float32)])
def test_subset_comes_back_from_its_file(tmp_path, weights):
    subset = select(a_store(6), "random", 0.5)
    subset = Subset(ids=subset.ids, info=subset.info, weights=weights)
    write_subset(tmp_path / "new folder" / "subset.parquet", subset)
    again = read_subset(tmp_path / "new folder" / "subset.parquet")
    assert again.ids.tolist() == subset.ids.tolist()
    assert again.ids.dtype == np.int64
    assert again.info == subset.info
    assert (again.weights is None) == (weights is None)
    if weights is not None:
        assert again.weights.tolist() == weights.tolist()


def test_scores_come_back_from_their_file(tmp_path):
    scores = scores_of(a_store())
    write_scores(tmp_path / "scores.parquet", scores)
    again = read_scores(tmp_path / "scores.parquet")
    assert again.ids.tolist() == scores.ids.tolist()
    assert again.labels.tolist() == scores.labels.tolist()
    for name, values in scores.columns.items():
        assert again.columns[name].dtype == np.float32
        assert again.columns[name].tolist() == values.tolist()
    np.testing.assert_array_equal(again.class_std, scores.class_std)
    assert (again.definitions, again.hard_ends) == (scores.definitions, scores.hard_ends)
    assert again.provenance == json.loads(json.dumps(scores.provenance))
    assert pq.read_schema(tmp_path / "scores.parquet").names == ["id", "label", *scores.columns]


def test_other_files_are_told_apart(tmp_path):
    store = a_store()
    write_scores(tmp_path / "scores.parquet", scores_of(store))
    write_subset(tmp_path / "subset.parquet", select(store, "random", 0.5))
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "plain.parquet")
    (tmp_path / "text.parquet").write_text("id,el2n\n1,0.5\n")
    with pytest.raises(ValueError, match=r"missing\.parquet does not exist"):
        read_scores(tmp_path / "missing.parquet")
    with pytest.raises(ValueError, match=r"is a prunekd-subset file, not a prunekd-scores file; make one with"):
        read_scores(tmp_path / "subset.parquet")
    with pytest.raises(ValueError, match=r"is a prunekd-scores file, not a prunekd-subset file; make one with"):
        read_subset(tmp_path / "scores.parquet")
    for read in (read_scores, read_subset):
        with pytest.raises(ValueError, match=r"prunekd did not write"):
            read(tmp_path / "plain.parquet")
        with pytest.raises(ValueError, match=r"not a Parquet file"):
            read(tmp_path / "text.parquet")
        with pytest.raises(ValueError, match=r"is a folder, not a Parquet file"):
            read(tmp_path)


def test_columns_that_were_lost_are_named(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(path, scores_of(a_store()))
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["el2n", "label"]), path)
    with pytest.raises(ValueError, match=r"lacks the columns label, el2n"):
        read_scores(path)


def test_a_later_version_is_refused(tmp_path):
    path = tmp_path / "subset.parquet"
    subset = select(a_store(), "random", 0.5)
    write_subset(path, subset)
    table = pq.read_table(path)
    metadata = {b"prunekd": table.schema.metadata[b"prunekd"].replace(b'"version": 1', b'"version": 2')}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(ValueError, match=r"has version 2 of the prunekd-subset format"):
        read_subset(path)


def test_what_a_policy_lacks_is_named(tmp_path):
    store = a_store()
    with pytest.raises(ValueError, match="policy herding looks at features; write them with `prunekd score"):
        select(store, "herding", 0.5)
    with pytest.raises(ValueError, match="policy beta also needs the column p_mean; train with --track dual,p_mean"):
        select(store, "beta", 0.5, scores=scores_of(store, more=("dual",)))
    np.save(tmp_path / "f.npy", np.zeros((3, 2), np.float16))
    with pytest.raises(ValueError, match="not one row for each of the 60 samples"):
        select(store, "herding", 0.5, features=tmp_path / "f.npy")


@settings(max_examples=50)
@given(data=st.data(), count=st.integers(1, 40), seed=st.integers(0, 9))
def test_a_subset_of_ones_own_ids(data, count, seed):
    whole = a_store(count, seed).split("train")
    shuffled = np.random.default_rng(seed).permutation(count)
    store = store_of(whole.ids[shuffled], whole.labels[shuffled])
    part = store.split("val")
    ids = data.draw(st.lists(st.sampled_from(whole.ids.tolist()), min_size=1, unique=True))
    subset = Subset.of_ids(
        store, np.array(ids, dtype=data.draw(st.sampled_from([np.int64, np.int32, np.uint16]))), "val"
    )
    assert subset.ids.tolist() == ids
    assert subset.ids.dtype == np.int64
    assert subset.weights is None
    on_disk, labels = part.ids.tolist(), part.labels.tolist()
    assert subset.rows(store).tolist() == [on_disk.index(i) for i in ids]
    kept = [labels[on_disk.index(i)] for i in ids]
    assert subset.info == {
        "policy": "given",
        "parameters": {},
        "balance": "none",
        "score": None,
        "score_definition": None,
        "scored_by": None,
        "seed": 0,
        "keep": len(ids) / count,
        "kept": len(ids),
        "total": count,
        "class_counts": [kept.count(c) for c in range(3)],
        "class_totals": [labels.count(c) for c in range(3)],
        "split": "val",
        "fingerprint": "f" * 64,
        "store": {"path": "/here/store", "classes": 3},
    }


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "ids are float64 of shape .0,.; give int64 sample ids"),
        ([1.0, 2.0], "ids are float64 of shape .2,."),
        ([[0, 1]], "ids are int64 of shape .1, 2."),
        ([True, False], "ids are bool"),
        ([4, 7, 4, 9, 7], "ids 4, 7 are named more than once; name each sample once"),
        ([4, 10, -1], r"sample id 10 is not in split 'train' of /here/store .2 of 3 are not"),
    ],
)
def test_ids_that_will_not_do_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        Subset.of_ids(store_of(np.arange(10), np.arange(10) % 3), np.array(ids))


def test_a_subset_is_taken_as_object_file_or_ids(tmp_path):
    store = a_store()
    subset = select(store, "random", 0.5)
    subset.save(str(tmp_path / "s.parquet"))
    assert as_subset(store, subset) is subset
    for path in (tmp_path / "s.parquet", str(tmp_path / "s.parquet")):
        assert as_subset(store, path).ids.tolist() == subset.ids.tolist()
        assert as_subset(store, path).info == subset.info
    assert as_subset(store, subset.ids, "val").info["split"] == "val"
    assert as_subset(store, subset.ids.tolist()).ids.tolist() == subset.ids.tolist()
    other = a_store(fingerprint="b" * 64)
    for value in (subset, tmp_path / "s.parquet"):
        with pytest.raises(ValueError, match="this subset was made for /here/store"):
            as_subset(other, value)


def test_rows_of_a_compacted_store_hold_the_same_samples(tiny_store, tmp_path):
    """Its file lies in the order of another ranking than the subset's."""
    ranking = select(tiny_store, "random", 0.75, 1)
    small = compact(tiny_store, ranking.ids, tmp_path / "small", ranking=ranking.info)
    chosen = ranking.ids[np.random.default_rng(2).permutation(len(ranking.ids))[:20]]
    assert small.split("train").ids.tolist() == ranking.ids.tolist() != sorted(ranking.ids.tolist())
    subset = Subset.of_ids(tiny_store, chosen)
    subset.check(small)
    rows = subset.rows(small)
    assert rows.tolist() == [ranking.ids.tolist().index(i) for i in chosen.tolist()]
    on_disk = tiny_store.split("train").ids.tolist()
    with small.split("train").payloads() as copies, tiny_store.split("train").payloads() as originals:
        for row, i in zip(rows.tolist(), chosen.tolist(), strict=True):
            assert copies.read(row) == originals.read(on_disk.index(i))
    dropped = np.setdiff1d(np.arange(96), ranking.ids)
    with pytest.raises(ValueError, match=r"is not in split 'train' .*holds only what was kept for it"):
        Subset.of_ids(tiny_store, dropped[:3]).rows(small)


def tampered(path, columns=None, **described):
    """Write the file at `path` anew with other columns or another description, and no digest, as 0.1.0 would have."""
    table = pq.read_table(path)
    description = json.loads(table.schema.metadata[b"prunekd"]) | described
    description = {name: value for name, value in description.items() if name != "digest"}
    for name, values in (columns or {}).items():
        place = table.column_names.index(name) if name in table.column_names else None
        table = table.drop_columns([name]) if place is not None else table
        table = table.append_column(name, pa.array(values))
    pq.write_table(table.replace_schema_metadata({b"prunekd": json.dumps(description).encode()}), path)


@pytest.mark.parametrize(
    ("columns", "described", "message"),
    [
        ({"id": [1, 2, 2]}, {}, "names the samples 2 more than once"),
        ({"id": [1, -2, 3]}, {}, "names the sample id -2, and ids count from 0"),
        ({"id": [1, None, 3]}, {}, "column id of .* holds float64 or missing values"),
        ({"id": ["1", "2", "3"]}, {}, "column id of .* holds object or missing values"),
        ({"weight": [1.0, -0.5, 1.0]}, {}, "gives 1 samples a weight that is negative or not finite.*-0.5"),
        ({"weight": [1.0, np.inf, np.nan]}, {}, "gives 2 samples a weight"),
        ({"weight": ["a", "b", "c"]}, {}, "column weight of .* holds object"),
        ({}, {"kept": 4}, "holds 3 ids, and its description says 4"),
        ({}, {"keep": "much"}, "damaged prunekd description: keep is 'much'"),
        ({}, {"fingerprint": None}, "damaged prunekd description: fingerprint is None"),
    ],
)
def test_contents_of_a_subset_that_cannot_be_right_are_refused(tmp_path, columns, described, message):
    path = tmp_path / "s.parquet"
    write_subset(path, select(a_store(6), "random", 0.5))
    tampered(path, columns, **described)
    with pytest.raises(ValueError, match=message) as error:
        read_subset(path)
    assert "make one with: prunekd select" in str(error.value)


@pytest.mark.parametrize(
    ("columns", "described", "message"),
    [
        ({"id": [0] * 6}, {}, "names the samples 0 more than once"),
        ({"label": [0, 1, 2, 3, 0, 0]}, {}, "labels 1 samples outside its 3 classes, the first 3"),
        ({"label": [0, 1, None, 1, 0, 0]}, {}, "column label of .* holds float64 or missing values"),
        ({"el2n": ["a"] * 6}, {}, "column el2n of .* holds object"),
        ({}, {"class_std": 3}, "damaged prunekd description: class_std is 3"),
        ({}, {"class_std": ["x", 1, 1]}, "class_std holds other things than numbers"),
        ({}, {"definitions": None}, "damaged prunekd description: definitions is None"),
    ],
)
def test_contents_of_scores_that_cannot_be_right_are_refused(tmp_path, columns, described, message):
    path = tmp_path / "s.parquet"
    write_scores(path, scores_of(a_store(6)))
    tampered(path, columns, **described)
    with pytest.raises(ValueError, match=message):
        read_scores(path)


def test_files_of_0_1_0_have_no_digest_and_are_read(tmp_path, told, monkeypatch):
    monkeypatch.setattr(logging.getLogger("prunekd.pruning.parquet"), "level", logging.DEBUG)
    monkeypatch.setattr(logging.getLogger("prunekd").handlers[-1], "level", logging.DEBUG)
    store = a_store()
    write_subset(tmp_path / "s.parquet", select(store, "random", 0.5))
    tampered(tmp_path / "s.parquet")
    assert len(read_subset(tmp_path / "s.parquet")) == 30
    assert any("has no digest: prunekd 0.1.0 wrote it" in line for line in told)


def test_other_ids_or_figures_under_the_same_description_are_noticed(tmp_path):
    """Checksums of Parquet's pages do not cover what was written anew as a whole, or the description."""
    store = a_store()
    for path, write, read, value, column, said in (
        (tmp_path / "subset.parquet", write_subset, read_subset, select(store, "random", 0.5), "id", b'"seed": 0'),
        (tmp_path / "scores.parquet", write_scores, read_scores, scores_of(store), "el2n", b'"high"'),
    ):
        write(path, value)
        table = pq.read_table(path)
        at = table.column_names.index(column)
        changed = table.column(column).to_numpy().copy()
        changed[[0, 1]] = changed[[1, 0]]
        pq.write_table(table.set_column(at, column, pa.array(changed)), path)
        with pytest.raises(ValueError, match="is damaged or was edited: its content is not what its digest says"):
            read(path)
        other = {b'"seed": 0': b'"seed": 1', b'"high"': b'"low"'}[said]
        metadata = {b"prunekd": table.schema.metadata[b"prunekd"].replace(said, other, 1)}
        pq.write_table(table.replace_schema_metadata(metadata), path)
        with pytest.raises(ValueError, match="is damaged or was edited"):
            read(path)


def test_the_digest_tells_ids_their_order_and_weights_apart(tmp_path):
    store = a_store()
    one = Subset.of_ids(store, store.split("train").ids[:10])
    others = [
        Subset.of_ids(store, store.split("train").ids[1:11]),
        Subset.of_ids(store, one.ids[::-1].copy()),
        Subset(ids=one.ids, info=one.info, weights=np.ones(10, np.float32)),
        Subset(ids=one.ids, info=one.info, weights=np.full(10, 2, np.float32)),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 5
    for k, subset in enumerate((one, *others)):
        subset.save(tmp_path / f"{k}.parquet")
        assert read_subset(str(tmp_path / f"{k}.parquet")).digest == subset.digest
        assert subset.describe() == {**subset.info, "digest": subset.digest}


def test_a_subset_of_another_split_is_refused(tmp_path):
    store = a_store()
    subset = select(store, "random", 0.5, split="val")
    subset.check(store)
    subset.check(store, "val")
    subset.save(tmp_path / "val.parquet")
    for value in (subset, tmp_path / "val.parquet"):
        assert as_subset(store, value, "val").ids.tolist() == subset.ids.tolist()
        assert as_subset(store, value, None).ids.tolist() == subset.ids.tolist()
        with pytest.raises(ValueError, match=r"is one of the split 'val', not 'train'; .*--split train"):
            as_subset(store, value)
    part = store_of(subset.ids[1:], np.zeros(29, np.int64))
    with pytest.raises(ValueError, match=rf"sample id {subset.ids[0]} is not in split 'val'"):
        as_subset(part, subset, "val")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (np.full(60, 0.5, np.float32), "the score teacher_ce is 0.5 for all 60 samples"),
        (np.full(60, -np.inf, np.float32), "the score teacher_ce is -inf for all 60 samples"),
        (np.where(np.arange(60) < 7, np.inf, np.arange(60)), "the score teacher_ce is infinite for 7 of 60 samples"),
        (np.arange(60.0), None),
    ],
)
def test_scores_that_rank_nothing_are_warned_of(values, line, told):
    store = a_store()
    scores = scores_of(store)
    scores = replace(scores, columns={**scores.columns, "teacher_ce": values})
    select(store, "hardest", 0.5, scores=scores, score="teacher_ce")
    assert len(told) == (line is not None)
    assert all(line in said for said in told)


def test_scores_without_class_statistics_reshape_nothing():
    store = a_store()
    scores = replace(scores_of(store), class_std=np.array([1.0, 2.5, 3.25]))
    np.testing.assert_allclose(scores.class_scale(store), scores.class_std, rtol=1e-6)
    for wrong in (np.full(3, np.nan), np.array([1, np.inf, 2]), np.array([1, 0.0, 2]), np.ones(2)):
        with pytest.raises(ValueError, match=r"no class statistics for . of 3 classes .*prunekd score /here/store"):
            replace(scores, class_std=wrong).class_scale(store)
    with pytest.raises(ValueError, match="these scores are of the split 'val', not 'train'"):
        replace(scores, provenance={**scores.provenance, "split": "val"}).class_scale(store)
    without = store_of(np.arange(4), np.array([0, 2, 0, 2]))  # the second class has no samples
    scale = replace(scores, class_std=np.array([2, np.nan, 3])).class_scale(without)
    assert scale.tolist() == [2, 1, 3]


def test_features_of_something_else_or_damaged_are_refused(tmp_path):
    store = a_store()
    file = features_of(store, tmp_path)
    select(store, "k_center", 0.5, features=str(file))  # of one's own making: nothing beside it
    describe_features(file, made_for(store, "train"))
    kept = select(store, "k_center", 0.5, features=file).ids.tolist()
    values = np.load(file)
    with pytest.raises(ValueError, match=r"the features .* was made for /here/store .* write them anew"):
        select(a_store(fingerprint="b" * 64), "k_center", 0.5, features=file)
    with pytest.raises(ValueError, match=r"features.npy are of the split 'train', not 'val'"):
        select(store, "k_center", 0.5, features=file, split="val")
    other = values.copy()
    other[7] = 0
    np.save(file, other)
    with pytest.raises(ValueError, match=r"features.npy is damaged: it is not what the digest in features.npy.json"):
        select(store, "k_center", 0.5, features=file)
    other[5, 1] = np.nan
    np.save(file, other)
    for beside in (True, False):
        with pytest.raises(ValueError, match="not finite for 1 samples or more, the first in row 5"):
            select(store, "k_center", 0.5, features=file)
        file.with_name("features.npy.json").unlink(missing_ok=beside is False)
    np.save(file, values)
    assert select(store, "k_center", 0.5, features=file).ids.tolist() == kept
