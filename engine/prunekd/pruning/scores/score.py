"""What a score is: a name with a version, a direction, and a function of a teacher's outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

HardEnd = Literal["high", "low"]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """A teacher's outputs for one batch, with what several scores share computed once.

    Attributes:
        logits: float32 (B, C), finite, C >= 2.
        labels: int64 (B,) in [0, C), on the device of the logits.
        features: float32 (B, F), what enters the last linear layer; None where the teacher offers none.
    """

    logits: Tensor
    labels: Tensor
    features: Tensor | None = None

    @cached_property
    def of_label(self) -> "OneAgainstRest":
        """The label's class against all others."""
        return OneAgainstRest.split(self.logits, self.labels)

    @cached_property
    def of_top(self) -> "OneAgainstRest":
        """The predicted class against all others."""
        return OneAgainstRest.split(self.logits, self.logits.argmax(dim=1))


@dataclass(frozen=True, kw_only=True)
class OneAgainstRest:
    """The softmax p seen from one class y, without the cancellation in 1 - p_y.

    log_softmax in float32 cannot tell p_y = 1 - 1e-9 from 1, so the easiest samples would all tie. Everything here is
    a function of the gap between y and the others, which keeps its relative precision at both ends.

    Attributes:
        loss: -log p_y, float32 (B,).
        miss: 1 - p_y, float32 (B,).
        rest: softmax over the other classes, float32 (B, C), 0 at y, so that p_k = miss * rest_k.
        rest_log: its logarithm, -inf at y.
        best_other: the largest other logit, float32 (B,).
    """

    loss: Tensor
    miss: Tensor
    rest: Tensor
    rest_log: Tensor
    best_other: Tensor

    @classmethod
    def split(cls, logits: Tensor, index: Tensor) -> "OneAgainstRest":
        """Split `logits` (B, C) at the class `index` (B,) of each row."""
        own = logits.gather(1, index[:, None])
        others = logits.scatter(1, index[:, None], -torch.inf)
        rest_log = F.log_softmax(others, dim=1)
        best_other = others.amax(dim=1)
        gap = best_other - own[:, 0] + (others - best_other[:, None]).exp().sum(dim=1).log()
        return cls(
            loss=F.softplus(gap),
            miss=gap.sigmoid(),
            rest=rest_log.exp(),
            rest_log=rest_log,
            best_other=best_other,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One entry of SCORES: a function of one batch's outputs.

    Attributes:
        name: the column's name in a scores file.
        version: raised whenever the values change for the same logits; `definition` is `name@version`.
        hard_end: which end of the scale the hard samples are at.
        compute: `Outputs` -> float32 (B,).
        needs_features: whether it looks at `Outputs.features`.
    """

    name: str
    version: int
    hard_end: HardEnd
    compute: Callable[[Outputs], Tensor]
    needs_features: bool = False

    @property
    def definition(self) -> str:
        """Name and version, as files record it: `el2n@1`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureScore:
    """One entry of FEATURE_SCORES: a function of all samples' features, which a pass writes to a file.

    Attributes:
        name, version, hard_end: as of a Score.
        compute: features float16 (n, F), read in blocks; labels int64 (n,); number of classes; seed -> float32 (n,).
    """

    name: str
    version: int
    hard_end: HardEnd
    compute: Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]

    @property
    def definition(self) -> str:
        """Name and version, as files record it."""
        return f"{self.name}@{self.version}"
