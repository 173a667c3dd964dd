"""Whether two models find the same prompts near each other, whatever map is between them.

Mutual k-nearest neighbours (Huh et al. 2024, arXiv 2405.07987): of the `k` prompts nearest to a
prompt in one model, the share that is among the `k` nearest in the other, as a mean over prompts.
Unrelated models share some, so it is compared with shuffled partners (Gröger, Wen and Brbić 2026,
arXiv 2602.14486). Near is a high cosine about the mean.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from axes.analysis.activations import mean, take
from axes.analysis.stats.auroc import Estimate, null_interval
from axes.warehouse.layers import Rows

NEIGHBOUR_COUNT = 10
# All pairs of rows are compared.
MAX_ROWS = 1000
_SHUFFLE_COUNT = 1000


def mutual_knn(x: Rows, y: Rows, *, seed: int = 0) -> tuple[Estimate, Estimate]:
    """The share of mutual neighbours of paired rows with its p-value, and its null.

    The null has the mean and the 5th and 95th percentile over shuffled partners; its mean is
    `k / (n - 1)`. Of more than `MAX_ROWS` rows so many are used, evenly spread; of fewer than
    `2 k + 1` all but themselves would be neighbours, so that `k` is at most half of the others.
    """
    rows = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_ROWS)).round().astype(int))
    count = max(min(NEIGHBOUR_COUNT, (len(rows) - 1) // 2), 1)
    of_x, of_y = (nearest(np.asarray(take(each, rows)[:]), count) for each in (x, y))
    is_near = np.zeros((len(rows), len(rows)), dtype=bool)
    np.put_along_axis(is_near, of_y, True, axis=1)

    def share(partners: Int[np.ndarray, " row"]) -> float:
        return float(is_near[partners[:, None], partners[of_x]].mean())

    random = np.random.default_rng(seed)
    null = np.array([share(random.permutation(len(rows))) for _ in range(_SHUFFLE_COUNT)])
    value = share(np.arange(len(rows)))
    p_value = (1 + int((null >= value).sum())) / (1 + _SHUFFLE_COUNT)
    return Estimate(value, p_value=p_value), null_interval(null)


def nearest(x: Float[np.ndarray, "row d_model"], count: int) -> Int[np.ndarray, "row neighbour"]:
    """Of every row the `count` others with the highest cosine about the mean, in no order.

    >>> nearest(np.array([[1.0, 0], [1, 0.1], [-1, 0], [-1, -0.1]]), 1).ravel().tolist()
    [1, 0, 3, 2]
    """
    centred = x.astype(np.float64) - mean(x)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    units = np.divide(centred, norms, where=norms > 0, out=np.zeros(centred.shape))
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argpartition(-cosines, count - 1, axis=1)[:, :count]
