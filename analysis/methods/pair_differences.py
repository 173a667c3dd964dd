"""The leading direction of the differences within matched pairs, not centred.

Principal component analysis of positive minus negative (Zou et al. 2023, arXiv 2310.01405, which
centres): centring the differences would take away their mean, and that is the concept.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.blocks import take
from axes.warehouse.errors import AxisError
from axes.warehouse.scratch import Rows


def pair_differences(
    x: Rows,
    labels: Bool[np.ndarray, " row"],
    groups: Int[np.ndarray, " row"],
    where: Bool[np.ndarray, " row"] | None = None,
) -> Float[np.ndarray, "pair d_model"]:
    """Mean of the positive rows minus mean of the negative ones of every pair that has both.

    Raises `AxisError` where no pair has both.
    """
    seen = np.ones(len(x), dtype=bool) if where is None else where
    shared = np.intersect1d(groups[seen & labels], groups[seen & ~labels])
    if not len(shared):
        raise AxisError(
            "pair_pca needs matched pairs, and no pair_id is shared by prompts of both classes: "
            "import the set with a column pair_id, or choose another --direction"
        )
    rows = np.flatnonzero(seen & np.isin(groups, shared))
    rows = rows[np.argsort(groups[rows], kind="stable")]
    values = np.asarray(take(x, rows)[:], dtype=np.float64)
    starts = np.flatnonzero(np.diff(groups[rows], prepend=groups[rows[0]] - 1))
    is_positive = labels[rows][:, None]
    sums = [np.add.reduceat(values * kind, starts) for kind in (is_positive, ~is_positive)]
    counts = [np.add.reduceat(kind.astype(float), starts) for kind in (is_positive, ~is_positive)]
    return sums[0] / counts[0] - sums[1] / counts[1]


def leading_difference(
    differences: Float[np.ndarray, "pair d_model"],
) -> Float[np.ndarray, " d_model"]:
    """The first right singular vector, its length the root mean square of the differences along it.

    The sign is fixed so that the mean difference projects above zero.

    >>> leading_difference(np.array([[-2.0, 0.0], [-2.0, 0.0]])).round(6) + 0.0
    array([-2.,  0.])
    """
    # The products of whichever side is smaller; only the leading vector is wanted.
    if len(differences) < differences.shape[1]:
        weights = np.linalg.eigh(differences @ differences.T)[1][:, -1]
        leading = differences.T @ weights
    else:
        leading = np.linalg.eigh(differences.T @ differences)[1][:, -1]
    norm = np.linalg.norm(leading)
    if norm == 0:
        return np.zeros(differences.shape[1])
    leading = leading / norm
    along = differences @ leading
    return leading * np.sqrt(np.square(along).mean()) * (1.0 if along.mean() >= 0 else -1.0)
