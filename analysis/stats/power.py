"""What prompts can show before anything is run: the smallest effect that 80 % of studies show.

The formula is that of `smallest_effect` in `v_claims`: a 95 % interval clears its null in four of
five studies where the effect is `1.96 + 0.84` standard errors. The standard errors are those of two
normal classes with one variance: of an AUROC that of Hanley and McNeil (1982), of a true-positive
rate the binomial one with that of the threshold. Rows count as independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Quantiles of the normal distribution: 97.5 % and 80 %.
REACH = 1.959964 + 0.841621
# A difference is of two axes as good as this, whose estimates correlate so.
AUROC, CORRELATION = 0.8, 0.5
RATE = 0.01


@dataclass(frozen=True)
class SmallestEffects:
    """An AUROC (chance: 0.5), a difference of AUROCs, and a TPR at 1 % FPR (chance: 0.01).

    A difference above 1 cannot be shown. The TPR is None where one false alarm is more than the
    rate. It is cautious: its interval is not symmetric, and clears 0.01 in more than four of five.
    """

    smallest_auroc: float
    smallest_auroc_difference: float
    smallest_tpr_at_fpr_1pct: float | None


def smallest_effects(
    positive_count: int, negative_count: int, *, is_out_of_fold: bool = False
) -> SmallestEffects:
    """What so many prompts of each class show, one or more of each.

    Out of fold the variance is up to twice as large (`evaluate_out_of_fold`), and is taken so.
    """
    counts, factor = (positive_count, negative_count), 2.0 if is_out_of_fold else 1.0
    tpr = None
    if negative_count * RATE >= 1:
        tpr = _smallest(RATE, lambda rate: factor * _tpr_variance(rate, *counts))
    difference = 2 * (1 - CORRELATION) * factor * _auroc_variance(AUROC, *counts)
    return SmallestEffects(
        smallest_auroc=_smallest(0.5, lambda area: factor * _auroc_variance(area, *counts)),
        smallest_auroc_difference=REACH * float(np.sqrt(difference)),
        smallest_tpr_at_fpr_1pct=tpr,
    )


def _smallest(chance: float, variance: Callable[[float], float]) -> float:
    """The value that lies `REACH` of its standard errors above chance."""
    from scipy.optimize import brentq

    def missing(value: float) -> float:
        return REACH * float(np.sqrt(variance(value))) - (value - chance)

    # Next to 1 the variance vanishes, so that some value is far enough from chance.
    return float(brentq(missing, chance, 1 - 1e-9))


def _auroc_variance(area: float, positive_count: int, negative_count: int) -> float:
    above, below = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    moved = (positive_count - 1) * above + (negative_count - 1) * below
    return (area * (1 - area) + moved) / (positive_count * negative_count)


def _tpr_variance(rate: float, positive_count: int, negative_count: int) -> float:
    from scipy.stats import norm

    # The slope of the ROC curve: how far the rate moves with the threshold's false-positive rate.
    slope = norm.pdf(norm.ppf(rate)) / norm.pdf(norm.ppf(RATE))
    return float(rate * (1 - rate) / positive_count + slope**2 * RATE * (1 - RATE) / negative_count)
