"""The spread of some numbers, in a few figures."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Minimum, quartiles, maximum and mean of the finite values, None where there are none.

    Attributes:
        not_finite: how many values are infinite or NaN.
    """

    min: float | None = None
    q25: float | None = None
    median: float | None = None
    q75: float | None = None
    max: float | None = None
    mean: float | None = None
    not_finite: int = 0

    @classmethod
    def of(cls, values: np.ndarray) -> "Distribution":
        """The distribution of `values`, numbers of any dtype and of shape (n,)."""
        finite = values[np.isfinite(values)].astype(np.float64)
        if not len(finite):
            return cls(not_finite=len(values))
        low, q25, median, q75, high = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1]).tolist()
        return cls(
            min=low,
            q25=q25,
            median=median,
            q75=q75,
            max=high,
            mean=float(finite.mean()),
            not_finite=len(values) - len(finite),
        )
