"""Logistic regression with an L2 penalty, as a direction and as a probe.

Minimise `mean(log(1 + exp(-+(z w + b)))) + penalty / 2 |w|^2` with `z` the standardised rows and a
free `b`; the direction is `w` over the scales, so that `x . direction` ranks as the probe does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import BLOCK_BYTES, blocks, mean
from axes.analysis.methods.covariance import mean_and_variance
from axes.analysis.stats.auroc import Labels
from axes.analysis.stats.minimize import minimize
from axes.warehouse.layers import Rows

PENALTY = 0.1


def logistic_fitter(
    x: Rows, where: Labels | None = None
) -> Callable[[Labels], Float[np.ndarray, " d_model"]]:
    """Labels of all rows -> weights in the units of `x`, fitted on those `where` is true.

    Standardising uses those rows too, and no label. Weights are zero where no direction lowers the
    loss.
    """
    from scipy.special import expit

    centre, variance = mean_and_variance(x, where)
    scale = np.where(variance > 0, np.sqrt(variance), 1.0)

    def fit(labels: Labels) -> Float[np.ndarray, " d_model"]:
        share = float(np.clip(mean(labels[:, None], where)[0], 1e-12, 1 - 1e-12))
        start = np.append(np.zeros(len(centre)), np.log(share / (1 - share)))
        # The loss asks for the rows dozens of times: those of one block are converted once.
        parts = list[tuple[np.ndarray, np.ndarray]]()
        if 4 * len(x) * len(centre) <= BLOCK_BYTES:
            parts = [(block.astype(float), y) for block, y in blocks(x, labels, where=where)]

        def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
            weights, offset = point[:-1] / scale, point[-1] - centre @ (point[:-1] / scale)
            total, slope, slope_offset, count = 0.0, np.zeros(len(centre)), 0.0, 0
            for block, kind in parts or blocks(x, labels, where=where):
                margins = block @ weights + offset
                errors = expit(margins) - kind
                total += float(np.logaddexp(0.0, np.where(kind, -margins, margins)).sum())
                slope += errors @ block
                slope_offset += float(errors.sum())
                count += len(block)
            slope = (slope - slope_offset * centre) / scale
            value = total / count + PENALTY / 2 * float(point[:-1] @ point[:-1])
            return value, np.append(slope / count + PENALTY * point[:-1], slope_offset / count)

        return minimize(loss, start, gtol=1e-7, ftol=1e-13)[:-1] / scale

    return fit
