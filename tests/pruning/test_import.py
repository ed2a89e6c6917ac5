"""Scores from other people's files, and means of scores files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prunekd.pruning.scores import Scores
from prunekd.pruning.scores.average import average_scores
from prunekd.pruning.scores.imported import import_scores
from prunekd.store import Split
from pruning.stores import store_of

KEYS = [f"{synset}/{synset}_{k}.JPEG" for synset in ("n01440764", "n01443537") for k in (7, 12, 3)]


class NamedSplit(Split):
    """A split whose samples have the names KEYS, the last on disk first."""

    def keys(self, rows: np.ndarray | None = None) -> list[str]:
        assert rows is None
        return KEYS[::-1]


IMAGENET = store_of(
    np.array([10, 11, 12, 20, 21, 22])[::-1],
    np.array([0, 0, 0, 1, 1, 1])[::-1],
    path=Path("imagenet"),
    classes=("tench", "goldfish"),
    kind=NamedSplit,
)


def write(path: Path, header: str | None, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows] if header else rows) + "\n")
    return path


def test_paths_are_joined_whole_by_their_end_or_by_file_name(tmp_path: Path) -> None:
    """The layouts in which ImageNet metrics are published: a path or a bare file name beside one number or several."""
    values = [0.5, -1.0, 3.25, 0.0, 7.0, 2.0]
    shuffled = np.random.default_rng(0).permutation(6)
    for prefix, rule in (("", "path"), ("data/train/", "the last two parts of the path"), (None, "file name")):
        names = [key.split("/")[1] if prefix is None else prefix + key for key in KEYS]
        rows = [f"{names[k]},{k},{values[k]}" for k in shuffled]
        file = write(tmp_path / "m.csv", "image,other,memorization", rows)
        scores, report = import_scores(IMAGENET, file, "memorization", key="path")
        assert report.rule == rule
        assert (report.matched, report.unscored, report.unused) == (6, 0, 0)
        assert scores.ids.tolist() == [10, 11, 12, 20, 21, 22]
        assert scores.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert scores.columns["memorization"].tolist() == values
        assert scores.definitions == {"memorization": "memorization@imported"}


def test_ids_columns_without_header_tsv_and_parquet(tmp_path: Path) -> None:
    ids = [12, 10, 11, 22, 20, 21]
    expected = [1.0, 2.0, 0.0, 4.0, 5.0, 3.0]
    plain = write(tmp_path / "plain.csv", None, [f"{i},{k}" for k, i in enumerate(ids)])
    scores, report = import_scores(IMAGENET, plain, "1", key="id", key_column="0", name="rank", hard_end="low")
    assert report.rule == "id"
    assert scores.columns["rank"].tolist() == expected
    assert scores.difficulty("rank", np.array([12, 10])).tolist() == [-0.0, -1.0]
    tsv = write(tmp_path / "t.tsv", "id\tscore", [f"{i}\t{k}" for k, i in enumerate(ids)])
    assert import_scores(IMAGENET, tsv, "score", key="id")[0].columns["score"].tolist() == expected
    pq.write_table(pa.table({"idx": ids, "s": range(6)}), tmp_path / "p.parquet")
    assert import_scores(IMAGENET, tmp_path / "p.parquet", "s", key="id")[0].columns["s"].tolist() == expected


def test_what_does_not_match_is_reported(tmp_path: Path) -> None:
    file = write(tmp_path / "m.csv", "path,s", [f"{KEYS[0]},1", f"{KEYS[4]},2", "n9/x.JPEG,3"])
    with pytest.raises(ValueError, match=r"does not score every sample; give them a score with --fill") as error:
        import_scores(IMAGENET, file, "s", key="path")
    assert f"4 samples of the store have no row in the file: {KEYS[1]}, {KEYS[2]}, {KEYS[3]}, ..." in str(error.value)
    assert "1 rows of the file belong to no sample of the store: n9/x.JPEG" in str(error.value)
    scores, report = import_scores(IMAGENET, file, "s", key="path", fill=-1)
    assert scores.columns["s"].tolist() == [1.0, -1.0, -1.0, -1.0, 2.0, -1.0]
    assert (report.matched, report.unscored, report.unused) == (2, 4, 1)


@pytest.mark.parametrize(
    ("header", "rows", "arguments", "message"),
    [
        ("path,s", ["a/b.jpg,1"], {}, r"matches no sample of imagenet by path: it has \['a/b.jpg'\]"),
        ("path,s", [f"{KEYS[0]},1", f"{KEYS[0]},2"], {}, r"scores 'n01440764/n01440764_7.JPEG' twice, in rows 0 and 1"),
        ("path,t", [f"{KEYS[0]},1"], {}, r"has no column 's'; its columns are path, t: name one with --column"),
        ("p,s", [f"{KEYS[0]},1"], {}, r"has no column for the path; .*name one with --key-column"),
        ("path,s", [f"{KEYS[0]},high"], {}, r"column s of .* does not hold numbers"),
        ("path,s", [f"{KEYS[0]},1,2"], {}, r"cannot be read as csv"),
    ],
)
def test_files_that_will_not_do_are_refused(
    tmp_path: Path, header: str, rows: list[str], arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        import_scores(IMAGENET, write(tmp_path / "m.csv", header, rows), "s", key="path", **arguments)


@pytest.mark.parametrize("name", ["id", "label", "teacher_std"])
def test_columns_of_scores_files_cannot_be_overwritten(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "m.csv", f"path,s,{name}", [f"{key},{k},{k}" for k, key in enumerate(KEYS)])
    for column, given in (("s", name), (name, None)):
        with pytest.raises(
            ValueError, match=f"a score cannot be called '{name}'.* choose another name for it with --as"
        ):
            import_scores(IMAGENET, file, column, key="path", name=given)
    if name != "teacher_std":
        with pytest.raises(ValueError, match=f"a score cannot be called '{name}'"):
            table([1, 2, 3], columns={name: np.zeros(3)}, definitions={name: "x@1"}, hard_ends={})


def test_arrays_of_scores_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="give one value per sample"):
        table([1, 2, 3], labels=np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="give each score a definition"):
        table([1, 2, 3], definitions={})


def table(values: list[float], **extra: object) -> Scores:
    made = {"fingerprint": "f" * 64, "store": {"path": "p", "classes": 2}, "split": "train", "seed": values[0]}
    scores = Scores(
        ids=np.arange(3), labels=np.zeros(3, np.int64), columns={"el2n_early": np.array(values, np.float32)},
        definitions={"el2n_early": "el2n_early@1"}, hard_ends={"el2n_early": "high"},
        class_std=np.full(2, np.nan), provenance=made,
    )  # fmt: skip
    return replace(scores, **extra)


def test_the_mean_of_several_runs() -> None:
    mean = average_scores({"a": table([1, 2, 3]), "b": table([2, 4, 3]), "c": table([0, 3, 9])})
    assert mean.columns["el2n_early"].tolist() == [1.0, 3.0, 5.0]
    assert mean.definitions == {"el2n_early": "el2n_early@1 x3"}
    assert [each["seed"] for each in mean.provenance["mean_of"]] == [1, 2, 0]


def test_tables_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="two files or more"):
        average_scores({"a": table([1, 2, 3])})
    with pytest.raises(ValueError, match="a and b score different samples"):
        average_scores({"a": table([1, 2, 3]), "b": table([1, 2, 3], ids=np.array([0, 1, 5]))})
    with pytest.raises(ValueError, match="no score of one definition in common"):
        average_scores({"a": table([1, 2, 3]), "b": table([1, 2, 3], definitions={"el2n_early": "el2n_early@2"})})
    foreign = {"fingerprint": "0" * 64, "store": {"path": "q", "classes": 2}}
    with pytest.raises(ValueError, match=r"a was made for p .*, but b for q"):
        average_scores({"a": table([1, 2, 3]), "b": table([1, 2, 3], provenance=foreign)})
