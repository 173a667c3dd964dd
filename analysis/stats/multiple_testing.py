"""p-values of several tests at once, so that the best of many is not taken for a finding.

Holm bounds the chance of any false rejection (Holm 1979), Benjamini and Hochberg the expected share
of false ones among the rejections (1995; for tests that are independent or positively dependent).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

CORRECTIONS = ("holm", "benjamini_hochberg")


def adjusted(
    p_values: Float[np.ndarray, " test"], correction: str = "holm"
) -> Float[np.ndarray, " test"]:
    """Adjusted p-values, each to be held against the level as it is; NaN stays and is no test.

    >>> adjusted(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    if correction not in CORRECTIONS:
        raise ValueError(f"no correction {correction}: there are {', '.join(CORRECTIONS)}")
    result = np.full(len(p_values), np.nan)
    is_test = ~np.isnan(p_values)
    given = p_values[is_test]
    order = np.argsort(given, kind="stable")
    ranks = np.arange(1, len(given) + 1)
    if correction == "holm":
        stepped = np.maximum.accumulate(given[order] * (len(given) + 1 - ranks))
    else:
        stepped = np.minimum.accumulate((given[order] * len(given) / ranks)[::-1])[::-1]
    found = np.empty(len(given))
    found[order] = np.minimum(stepped, 1.0)
    result[is_test] = found
    return result
