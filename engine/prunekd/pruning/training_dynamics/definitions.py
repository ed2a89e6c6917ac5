"""What the training-dynamics scores are.

All are taken from the views and the mode (batch norm, dropout) that training itself uses, once per presentation of a
sample; p is the student's probability of the label.

forgetting   presentations at which a sample is wrong after it was right at the one before; a sample that was never
             right has +inf (Toneva et al., ICLR 2019, section 3).
p_mean       mean over presentations of p itself, which the policy `beta` needs beside dual.
aum          mean over presentations of the logit margin z_y - max_{k != y} z_k (Pleiss et al., NeurIPS 2020, eq. 1-2).
el2n_early   mean of ||softmax(z) - onehot(y)||_2 over the first ten presentations (Paul et al., NeurIPS 2021, def. 2.2,
             who take one early moment and average over ten runs: `prunekd score --merge` averages runs).
dyn_unc      mean over windows of ten presentations of the standard deviation of p, unbiased (He et al., CVPR workshops
             2024, eq. 2-3).
dual         mean over the same windows of that standard deviation times (1 - the window's mean p) (Cho et al., ICML
             2025, eq. 3-4).
tdds         exponential moving average (weight 0.9 on the newest, as the authors have it) over the same windows of the
             norm of the deviations of d_t = p_t |log p_t - log p_{t-1}| from their mean (Zhang et al., CVPR 2024, eq.
             6-9). The paper sums d_t over all classes, for which it stores whole outputs; here it is the label's term
             alone, which takes O(1) memory per sample.
"""

from dataclasses import dataclass

from prunekd.pruning.scores.score import HardEnd

WINDOW = 10  # presentations in a window of dyn_unc, dual and tdds
EARLY = 10  # presentations that el2n_early averages
DECAY = 0.9  # weight of the newest window in tdds


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamic:
    """One training-dynamics score: its versioned definition, where its hard end is, whether it looks at windows."""

    definition: str
    hard_end: HardEnd
    windowed: bool = False


DYNAMICS: dict[str, Dynamic] = {
    "forgetting": Dynamic(definition="forgetting@1", hard_end="high"),
    "aum": Dynamic(definition="aum@1", hard_end="low"),
    "el2n_early": Dynamic(definition="el2n_early@1", hard_end="high"),
    "p_mean": Dynamic(definition="p_mean@1", hard_end="low"),
    "dyn_unc": Dynamic(definition="dyn_unc@1", hard_end="high", windowed=True),
    "dual": Dynamic(definition="dual@1", hard_end="high", windowed=True),
    "tdds": Dynamic(definition="tdds@1", hard_end="high", windowed=True),
}
