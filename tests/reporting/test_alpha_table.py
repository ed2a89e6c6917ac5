"""The table of a sweep over alpha, against its definition."""

import math
from pathlib import Path
from statistics import mean, stdev

from hypothesis import given
from hypothesis import strategies as st

from prunekd.reporting.alpha_table import alpha_rows, alpha_text
from prunekd.reporting.results import Run, Sweep
from prunekd.sweep.arms import ALPHAS, alpha_arms

KEEPS = (1.0, 0.5, 0.1)


def sweep_of(top1: dict[tuple[float, float, int], float], val: int | None = None) -> Sweep:
    runs = tuple(
        Run(
            name=f"{keep}-{alpha}-{seed}", arm="plain" if alpha == 0 else f"alpha{alpha}", policy="random", keep=keep,
            seed=seed, epochs=1, samples_kept=10, samples_total=10, train_seconds=1.0, epoch_seconds=(1.0,), phases={},
            top1=value, alpha=alpha or None, val_samples=val,
        )
        for (keep, alpha, seed), value in top1.items()
    )  # fmt: skip
    return Sweep(path=Path("s"), runs=runs, missing=(), unlisted=(), costs={}, facts={}, processes=())


@given(st.data(), st.integers(1, 3), st.sampled_from([None, 100, 10_000]))
def test_rows_hold_means_spreads_and_the_best(data: st.DataObject, seeds: int, val: int | None) -> None:
    accuracy = st.floats(0, 1, allow_nan=False).map(lambda value: round(value, 3))
    top1 = {(k, a, s): data.draw(accuracy) for k in KEEPS for a in (0.0, *ALPHAS) for s in range(seeds)}
    rows = alpha_rows(sweep_of(top1, val))
    assert [(row["keep"], row["alpha"]) for row in rows] == [(k, a) for k in KEEPS for a in (0.0, *ALPHAS)]
    for keep in KEEPS:
        mine = [row for row in rows if row["keep"] == keep]
        values = {a: [top1[keep, a, s] for s in range(seeds)] for a in (0.0, *ALPHAS)}
        assert [row["top1"] for row in mine] == [round(mean(values[row["alpha"]]), 5) for row in mine]
        (best,) = [row["alpha"] for row in mine if row["best"]]
        assert best > 0
        assert mean(values[best]) == max(mean(values[a]) for a in ALPHAS)
        for row in mine:
            if seeds == 1:
                assert row["within_spread"] is None
                continue
            both = (values[best], values[row["alpha"]])
            binomial = sum(mean(v) * (1 - mean(v)) / val for v in both) if val else 0.0
            margin = math.sqrt(sum(stdev(v) ** 2 for v in both) + binomial)
            gap = mean(values[best]) - mean(values[row["alpha"]])
            assert row["within_spread"] == (gap <= margin) or math.isclose(gap, margin, abs_tol=1e-9)


def test_arms_differ_in_alpha_alone_and_the_text_marks_the_best() -> None:
    arms = alpha_arms("cached")
    assert [arm.overrides(0.5) for arm in arms] == [[f"distill.alpha={alpha}"] for alpha in ALPHAS]
    assert len({arm.name for arm in arms}) == len(ALPHAS)
    text = alpha_text(alpha_rows(sweep_of({(0.5, 0.25, 0): 0.3, (0.5, 0.25, 1): 0.3, (0.5, 0.9, 0): 0.4,
                                            (0.5, 0.9, 1): 0.4, (0.5, 0.0, 0): 0.1, (0.5, 0.0, 1): 0.1})))  # fmt: skip
    assert [line.split()[2:] for line in text.splitlines()[1:]] == [
        ["0", "10.00%", "+-", "0.00%"],
        ["0.25", "30.00%", "+-", "0.00%"],
        ["0.9", "40.00%", "+-", "0.00%", "best"],
    ]
