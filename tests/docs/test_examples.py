"""The worked examples do what they say, beyond running."""

import runpy
from typing import Any

import numpy as np
import torch

from docs.pages import ROOT
from prunekd.distill import ObjectiveSettings
from prunekd.input import ViewSettings, open_reader, train_plan
from prunekd.pruning.scores import Outputs
from prunekd.store import Store


def example(name: str) -> dict[str, Any]:
    """The names an example defines, without running it as a program."""
    return runpy.run_path(str(ROOT / "docs/examples" / f"{name}.py"), run_name=name)


def test_every_prefix_of_the_policy_is_spread_over_all_difficulties() -> None:
    rng = np.random.default_rng()
    scores, labels, ids = rng.permutation(1000).astype(float), rng.integers(0, 5, 1000), rng.permutation(1000) + 7
    rank = example("own_policy")["rank"]
    ranking = rank(scores, labels, ids, 0, balance="none")
    assert sorted(ranking) == sorted(ids)
    shuffled = rng.permutation(1000)
    assert np.array_equal(ranking, rank(scores[shuffled], labels[shuffled], ids[shuffled], 0, balance="none"))
    difficulty = dict(zip(ids, scores, strict=True))
    for kept in (50, 200, 500):
        found = np.sort([difficulty[one] for one in ranking[:kept]])
        assert np.diff(np.concatenate([[-1], found, [1000]])).max() <= 3 * 1000 / kept


def test_the_score_is_the_probability_of_the_likeliest_wrong_class() -> None:
    logits, labels = 3 * torch.randn(64, 7), torch.randint(0, 7, (64,))
    probabilities = logits.double().softmax(1).scatter(1, labels[:, None], 0.0)
    found = example("own_score")["compute"](Outputs(logits=logits, labels=labels))
    torch.testing.assert_close(found.double(), probabilities.amax(1), rtol=1e-5, atol=1e-7)


def test_the_objective_is_the_reverse_divergence() -> None:
    student = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    teacher, labels = torch.randn(9, 5, dtype=torch.float64), torch.randint(0, 5, (9,))
    objective = example("own_objective")["Reverse"](ObjectiveSettings(alpha=1.0, temperature=2.0))
    p, q = (student / 2).softmax(1), (teacher / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(objective(student, teacher, labels, None), expected)


def test_the_reader_gives_what_native_gives_and_reads_once(tiny_store: Store) -> None:
    split, view = tiny_store.split("train"), ViewSettings(kind="random_resized_crop", size=10)
    reader = example("own_reader")["MemoryReader"](tiny_store, "train")
    with reader, open_reader("native", tiny_store, workers=1) as native:
        for epoch in range(2):
            plan = train_plan(split, ids=None, seed=1, epoch=epoch, batch_size=32, view=view)
            for ours, theirs in zip(reader.epoch(plan), native.epoch(plan), strict=True):
                assert torch.equal(ours.images, theirs.images)
                assert torch.equal(ours.ids, theirs.ids)
        assert reader.bytes_read * 2 == reader.payload_bytes == native.payload_bytes
