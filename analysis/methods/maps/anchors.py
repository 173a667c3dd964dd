"""A map through relative coordinates: what a row has in common with a few anchor prompts.

The coordinates of a row are its products with the unit activations of anchors, about the mean
(Moschella et al. 2023, arXiv 2209.15430; Kim and Han 2026, arXiv 2605.09875). They do not change
when a space is turned, so they are taken to be those of the reference but for one factor, and the
reference's anchors lead back from coordinates to activations (docs/methods.md, Alignment).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float

from axes.analysis.activations import blocks, mean, take
from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.methods.maps.alignment import Choice, Procedure
from axes.analysis.stats.auroc import Labels
from axes.warehouse.layers import Rows

ANCHOR_COUNT = 256


class AnchorProjection(Procedure):
    """The map through anchors; the rank is set, or the best on held-out rows."""

    def choose(self, y: Rows) -> Choice:
        """The rank of least error on the held-out rows."""
        if self.options.rank is not None:
            return Choice(rank=self.options.rank)
        path = anchor_path(self.x, y, self.parts["fitted"])
        won, power = path.sums(self.x, y, self.parts["held_out"])
        # Squared error of each rank, less the total: components are orthogonal in the reference.
        errors = path.factors**2 * power.cumsum() - 2 * path.factors * won.cumsum()
        return Choice(rank=int(np.argmin(errors)) + 1)

    def solve(self, y: Rows, part: str, choice: Choice) -> Alignment:
        """The map of that rank through anchors of a part of the rows."""
        assert choice.rank is not None
        return anchor_path(self.x, y, self.parts[part]).solve(choice.rank)


@dataclass(frozen=True)
class AnchorPath:
    """The maps of every rank: `factors[k - 1] * inward[:, :k] @ outward[:k]`, mean to mean."""

    mean_x: Float[np.ndarray, " d_model"]
    mean_y: Float[np.ndarray, " d_reference"]
    inward: Float[np.ndarray, "d_model component"]
    outward: Float[np.ndarray, "component d_reference"]
    factors: Float[np.ndarray, " component"]

    def solve(self, rank: int) -> Alignment:
        """The map through the first components; all of them where there are fewer than `rank`."""
        rank = min(rank, len(self.factors))
        weights = self.factors[rank - 1] * self.inward[:, :rank] @ self.outward[:rank]
        return Alignment(weights, self.mean_y - self.mean_x @ weights, None)

    def sums(
        self, x: Rows, y: Rows, where: Labels
    ) -> tuple[Float[np.ndarray, " component"], Float[np.ndarray, " component"]]:
        """By component: the products of mapped rows and targets, and the squares of mapped rows."""
        won, power = np.zeros(len(self.outward)), np.zeros(len(self.outward))
        for block, target in blocks(x, y, where=where):
            mapped = (block - self.mean_x) @ self.inward
            won += np.einsum("ij,ij->j", mapped, (target - self.mean_y) @ self.outward.T)
            power += np.square(mapped).sum(axis=0)
        return won, power


def anchor_path(x: Rows, y: Rows, where: Labels) -> AnchorPath:
    """The maps through `ANCHOR_COUNT` anchors, spread evenly over the rows `where` is true."""
    rows = np.flatnonzero(where)
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, ANCHOR_COUNT).round().astype(int))]
    mean_x, mean_y = mean(x, where), mean(y, where)
    left, values, outward = scipy.linalg.svd(_unit(y, chosen, mean_y), full_matrices=False)
    is_kept = values > values[0] * np.finfo(float).eps * len(chosen)
    inward = _unit(x, chosen, mean_x).T @ (left[:, is_kept] / values[is_kept])
    path = AnchorPath(mean_x, mean_y, inward, outward[is_kept], np.ones(int(is_kept.sum())))
    won, power = (sums.cumsum() for sums in path.sums(x, y, where))
    factors = np.divide(won, power, where=power > 0, out=np.zeros(len(power)))
    return AnchorPath(mean_x, mean_y, inward, path.outward, factors)


def _unit(
    x: Rows, chosen: np.ndarray, centre: Float[np.ndarray, " d_model"]
) -> Float[np.ndarray, "anchor d_model"]:
    """The anchors about the mean, each of unit length."""
    anchors = np.asarray(take(x, chosen)[:], dtype=np.float64) - centre
    norms = np.linalg.norm(anchors, axis=1, keepdims=True)
    return np.divide(anchors, norms, where=norms > 0, out=np.zeros(anchors.shape))
