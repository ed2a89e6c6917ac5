"""The scores there are. A new one is a file beside this and a line here."""

from prunekd.pruning.scores import el2n, entropy, least_confidence, margin, teacher_ce
from prunekd.pruning.scores.score import Score

SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        teacher_ce.SCORE,
        el2n.SCORE,
        margin.SCORE,
        entropy.SCORE,
        least_confidence.SCORE,
    )
}
