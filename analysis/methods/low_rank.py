"""Maps through few dimensions: reduced-rank ridge and canonical correlations.

Of the ridge map `W` keep the `k` combinations of the targets that it predicts best:
`W_k = W G V_k V_k' G^-1`, with `V_k` the first eigenvectors of
`G S_xy' (S_xx + lambda)^-1 S_xy G`. With `G = I` this is reduced-rank ridge (Izenman 1975;
Mukherjee and Zhu 2011), which weighs targets by their variance. With `G = (S_yy + lambda)^-1/2` the
combinations are the canonical variates of regularised canonical correlation analysis (Hotelling
1936; Vinod 1976): each direction of the target counts by how well it is predicted and not by its
size, and the map predicts the target from the first `k` pairs of variates. All ranks together cost
two products, since the components nest.

The rotation that lays one space on another: a map that keeps angles, with no lambda to choose.

Orthogonal Procrustes (Schönemann 1966) about the means: with `S_xy = P diag(s) V'` the map is
`Q = P V'`, which has orthonormal rows or columns, whichever are fewer. Into a space at least as
wide it is the least-squares isometry; into a narrower one it maximises `tr(Q' S_xy)` (the least
squares has no closed form, since a projection keeps only part of `x`). With a scale the map is
`c Q`, `c = tr(Q' S_xy) / tr(Q' S_xx Q)`, the least-squares factor given `Q`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

from axes.analysis.activations import blocks
from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.ridge import MomentFitter, Moments, RidgePath
from axes.warehouse.layers import Rows


@dataclass(frozen=True)
class RankPath:
    """The maps of every rank at one lambda: `inward[:, :k] @ outward[:k]`."""

    path: RidgePath
    ridge_lambda: float
    inward: Float[np.ndarray, "d_model component"]
    outward: Float[np.ndarray, "component d_reference"]

    def solve(self, rank: int) -> Alignment:
        """The map through `rank` dimensions."""
        weights = self.inward[:, :rank] @ self.outward[:rank]
        mean_x, mean_y = self.path.spectrum.mean, self.path.mean_y
        return Alignment(weights, mean_y - mean_x @ weights, self.ridge_lambda)

    def held_out_errors(
        self, x: Rows, y: Rows, where: Bool[np.ndarray, " row"]
    ) -> Float[np.ndarray, " component"]:
        """Squared error of the maps of rank 1, 2, ... on rows that were not fitted."""
        components = self.inward.shape[1]
        linear, products = np.zeros(components), np.zeros((components, components))
        total = 0.0
        for block, target in blocks(x, y, where=where):
            scores = (block - self.path.spectrum.mean) @ self.inward
            targets = target - self.path.mean_y
            total += float(np.square(targets).sum())
            linear += np.einsum("ij,ij->j", scores, targets @ self.outward.T)
            products += scores.T @ scores
        quadratic = (products * (self.outward @ self.outward.T)).cumsum(axis=0).cumsum(axis=1)
        return total - 2 * linear.cumsum() + quadratic.diagonal()


def rank_path(
    path: RidgePath,
    ridge_lambda: float,
    target_products: Float[np.ndarray, "d_reference d_reference"] | None = None,
) -> RankPath:
    """Reduced-rank ridge or, given the targets' products about their mean, canonical variates."""
    rotated, weights = path.rotated, path.solve(ridge_lambda).weights
    if target_products is None:
        outward = np.eye(rotated.shape[1])
        inward = outward
    else:
        values, vectors = np.linalg.eigh(target_products)
        roots = np.sqrt(values.clip(min=0.0) + ridge_lambda)
        inward, outward = (vectors / roots) @ vectors.T, (vectors * roots) @ vectors.T
    seen = rotated @ inward
    shrunk = path.scale / (path.spectrum.values + ridge_lambda)
    _, vectors = np.linalg.eigh((seen.T * shrunk) @ seen)
    # Largest first; the signs of the components cancel in the map.
    kept = vectors[:, ::-1][:, : min(weights.shape)]
    return RankPath(path, ridge_lambda, weights @ (inward @ kept), kept.T @ outward)


class ReducedRankFitter(MomentFitter):
    """Accumulates pairs `(x, y)`; `solve` gives the ridge map through few dimensions."""

    def solve(self, ridge_lambda: float, rank: int) -> Alignment:
        """The map of a rank at a lambda."""
        return rank_path(RidgePath.of_moments(self.moments()), ridge_lambda).solve(rank)


class CanonicalFitter(MomentFitter):
    """Accumulates pairs `(x, y)`; `solve` gives the map through pairs of canonical variates."""

    def solve(self, ridge_lambda: float, rank: int) -> Alignment:
        """The map of the first `rank` pairs at a lambda."""
        moments = self.moments()
        path = RidgePath.of_moments(moments)
        return rank_path(path, ridge_lambda, moments.yy).solve(rank)


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
