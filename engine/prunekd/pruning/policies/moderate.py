"""moderate: samples whose features lie at a middling distance from the median of their class (Xia et al., ICLR 2023).

The authors keep one percentile band, 0.5 - keep / 2 to 0.5 + keep / 2, of all distances together: the ranking is from
the median distance outwards, as `medium` has it, over all samples unless another balance is asked for.
"""

from prunekd.pruning.policies import medium
from prunekd.pruning.policies.policy import Policy

POLICY = Policy(
    name="moderate",
    summary="around the median distance to the class's median feature",
    rank=medium.rank,
    default_score="moderate",
)
