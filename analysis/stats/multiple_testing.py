"""p-values of several tests at once, so that the best of many is not taken for a finding.

Holm bounds the chance of any false rejection (Holm 1979), Benjamini and Hochberg the expected share
of false ones among the rejections (1995; for tests that are independent or positively dependent).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from axes.analysis.methods import load
from axes.analysis.stats import CORRECTIONS


def adjusted(
    p_values: Float[np.ndarray, " test"], correction: str = "holm"
) -> Float[np.ndarray, " test"]:
    """Adjusted p-values, each to be compared with the level as it is; NaN stays and is no test.

    >>> adjusted(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    result, order = p_values.copy(), np.argsort(p_values, kind="stable")
    tests = order[: int((~np.isnan(p_values)).sum())]  # NaN sorts last.
    result[tests] = np.minimum(load(CORRECTIONS[correction])(p_values[tests]), 1.0)
    return result


def holm(ascending: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Each times the number of tests from it on, and not below the one before."""
    return np.maximum.accumulate(ascending * np.arange(len(ascending), 0, -1))


def benjamini_hochberg(ascending: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Each times the number of tests over its rank, and not above the one after."""
    ranks = np.arange(1, len(ascending) + 1)
    return np.minimum.accumulate((ascending * len(ascending) / ranks)[::-1])[::-1]
