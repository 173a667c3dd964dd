"""One axis out of many models' aligned directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class UniversalAxis:
    """The first right singular vector of the stacked directions, and all singular values."""

    vector: Float[np.ndarray, " d_model"]
    singular_values: Float[np.ndarray, " component"]


def universal_axis(directions: Float[np.ndarray, "model d_model"]) -> UniversalAxis:
    """SVD of unit directions, stacked and not centred (centring would take the shared part away).

    The sign is fixed so that the mean inner product with the directions is positive: the positive
    class projects higher. With k directions all alike the first singular value is sqrt(k).
    """
    _, singular_values, right = np.linalg.svd(directions, full_matrices=False)
    axis = right[0]
    sign = 1.0 if (directions @ axis).mean() >= 0 else -1.0
    return UniversalAxis(sign * axis, singular_values)
