"""The scores there are. A new one is a file beside this and a line here."""

from prunekd.pruning.scores import (
    el2n,
    entropy,
    grand_last,
    least_confidence,
    margin,
    moderate,
    prototype,
    ssp,
    teacher_ce,
)
from prunekd.pruning.scores.score import FeatureScore, Score

SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        teacher_ce.SCORE,
        el2n.SCORE,
        grand_last.SCORE,
        margin.SCORE,
        entropy.SCORE,
        least_confidence.SCORE,
    )
}
FEATURE_SCORES: dict[str, FeatureScore] = {score.name: score for score in (prototype.SCORE, moderate.SCORE, ssp.SCORE)}
