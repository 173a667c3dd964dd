"""The rotation that lays one space on another: a map that keeps angles, with no lambda to choose.

Orthogonal Procrustes (Schönemann 1966) about the means: with `S_xy = P diag(s) V'` the map is
`Q = P V'`, which has orthonormal rows or columns, whichever are fewer. Into a space at least as
wide it is the least-squares isometry; into a narrower one it maximises `tr(Q' S_xy)` (the least
squares has no closed form, since a projection keeps only part of `x`). With a scale the map is
`c Q`, `c = tr(Q' S_xy) / tr(Q' S_xx Q)`, the least-squares factor given `Q`.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.moments import MomentFitter, Moments


class ProcrustesFitter(MomentFitter):
    """Accumulates pairs `(x, y)`; `solve` gives the rotation."""

    def solve(self, *, is_scaled: bool = True) -> Alignment:
        """The map; without a scale it keeps lengths too, as far as its width allows."""
        return procrustes(self.moments(), is_scaled=is_scaled)


def procrustes(moments: Moments, *, is_scaled: bool = True) -> Alignment:
    """The semi-orthogonal map of accumulated sums, from means to means.

    >>> turned = np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> fitter = ProcrustesFitter(2, 2).update(np.eye(2) + 5, 3 * np.eye(2) @ turned)
    >>> (fitter.solve().weights / 3).round(6) + 0.0
    array([[ 0.,  1.],
           [-1.,  0.]])
    """
    left, values, right = scipy.linalg.svd(moments.xy, full_matrices=False)
    weights = left @ right
    if is_scaled:
        power = float(np.einsum("ij,ij->", weights, moments.xx @ weights))
        weights = weights * (float(values.sum()) / power if power else 0.0)
    return Alignment(weights, moments.mean_y - moments.mean_x @ weights, None)
