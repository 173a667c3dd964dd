"""Maps with a constraint: reduced-rank ridge, canonical correlations, orthogonal Procrustes.

Reduced-rank ridge keeps of the ridge map `W` the `k` combinations of the targets that it predicts
best: `W_k = W G V_k V_k' G^-1`, with `V_k` the first eigenvectors of
`G S_xy' (S_xx + lambda)^-1 S_xy G` and `G = I` (Izenman 1975; Mukherjee and Zhu 2011). With
`G = (S_yy + lambda)^-1/2` they are canonical variates (Hotelling 1936; Vinod 1976). All ranks
together cost two products, since the components nest. Orthogonal Procrustes (Schönemann 1966) is
`Q = P V'` of `S_xy = P diag(s) V'`; docs/methods.md (Alignment) says what each is best at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from jaxtyping import Float

from axes.analysis.activations import blocks
from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.methods.maps.alignment import Choice, Procedure
from axes.analysis.methods.maps.ridge import Moments, Ridge, RidgeFitter, RidgePath, cross_products
from axes.analysis.stats.auroc import Labels
from axes.warehouse.layers import Rows


class ReducedRank(Ridge):
    """Reduced-rank ridge; the rank is set, or the best on held-out rows."""

    is_canonical = False

    def choose(self, y: Rows) -> Choice:
        """Lambda of the full map, and at that lambda the rank."""
        choice, rank = super().choose(y), self.options.rank
        if rank is None:
            ranks = self._ranks(y, "fitted", choice)
            rank = int(np.argmin(ranks.held_out_errors(self.x, y, self.parts["held_out"]))) + 1
        return replace(choice, rank=rank)

    def solve(self, y: Rows, part: str, choice: Choice) -> Alignment:
        """The map of that rank on a part of the rows."""
        assert choice.rank is not None
        return self._ranks(y, part, choice).solve(choice.rank)

    def _ranks(self, y: Rows, part: str, choice: Choice) -> RankPath:
        assert choice.ridge_lambda is not None
        path, products = self.path(y, part), None
        if self.is_canonical:
            products = cross_products(y, y, path.mean_y, path.mean_y, where=self.parts[part])
        return rank_path(path, choice.ridge_lambda, products)


class CanonicalCorrelation(ReducedRank):
    """The map through pairs of canonical variates."""

    is_canonical = True


class Procrustes(Procedure):
    """The rotation, and with `is_scaled` a factor; it has nothing to choose."""

    def solve(self, y: Rows, part: str, choice: Choice) -> Alignment:
        """The map fitted on a part of the rows."""
        fitter = RidgeFitter(self.x.shape[1], y.shape[1])
        moments = fitter.update_all(self.x, y, self.parts[part]).moments()
        return procrustes(moments, is_scaled=self.options.is_scaled)


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

    def held_out_errors(self, x: Rows, y: Rows, where: Labels) -> Float[np.ndarray, " component"]:
        """Squared error of the maps of rank 1, 2, ... on rows that were not fitted."""
        # The map of rank k is the first k terms of `sum_i inward_i outward_i'`, so its error is in
        # sums over i, j < k: the leading corner sums of matrices [component, component].
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


def procrustes(moments: Moments, *, is_scaled: bool = True) -> Alignment:
    """The semi-orthogonal map of accumulated sums, from means to means.

    >>> turned = np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> fitter = RidgeFitter(2, 2).update(np.eye(2) + 5, 3 * np.eye(2) @ turned)
    >>> (procrustes(fitter.moments()).weights / 3).round(6) + 0.0
    array([[ 0.,  1.],
           [-1.,  0.]])
    """
    left, values, right = scipy.linalg.svd(moments.xy, full_matrices=False)
    weights = left @ right
    if is_scaled:
        power = float(np.einsum("ij,ij->", weights, moments.xx @ weights))
        weights = weights * (float(values.sum()) / power if power else 0.0)
    return Alignment(weights, moments.mean_y - moments.mean_x @ weights, None)
