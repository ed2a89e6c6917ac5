"""The weight of the teacher's term as a function of the keep ratio.

P1 (Ben-Baruch et al., ICML 2025) finds that the best alpha rises as fewer samples are kept, and publishes no closed
form. AUTO_ALPHA is what our own sweep gave: the best alpha above 0 at each keep ratio in benchmarks/results/alpha.csv
(handwritten digits, three seeds, 12 epochs). Most differences there lie within the spread of the seeds, as they do on
photographs (natural59_alpha.csv, two seeds), so it is weak evidence: run `prunekd bench --sweep alpha` on your own data
before relying on it.
"""

import numpy as np

AUTO_ALPHA = {0.1: 0.75, 0.25: 0.5, 0.5: 0.5, 1.0: 0.5}  # keep ratio -> alpha


def resolve_alpha(alpha: float | str, keep: float) -> tuple[float, str]:
    """Return alpha for a keep ratio, and where it came from.

    Args:
        alpha: a number in [0, 1], or `auto` to interpolate AUTO_ALPHA in log(keep), constant beyond its ends.
        keep: fraction of the data kept, in (0, 1].
    """
    if alpha != "auto":
        return float(alpha), "as set"
    ratios = np.array(sorted(AUTO_ALPHA))
    values = np.array([AUTO_ALPHA[ratio] for ratio in ratios])
    found = float(np.interp(np.log(keep), np.log(ratios), values))
    return round(found, 3), f"auto: our measured table at keep {keep:.3g}"
