"""An alignment: a map from one model's space into a reference's, as it is stored.

Every method but one gives an affine map, `x -> x W + b`. A gradient-trained one may add a hidden
layer, `relu(x A + a) B`; such a map takes a direction by its mean Jacobian over the rows that it
was fitted on, the affine map closest to it for small differences there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import blocks, project, project_centred
from axes.analysis.stats.auroc import Scores
from axes.warehouse.errors import AxisError
from axes.warehouse.layers import Rows


@dataclass(frozen=True)
class HiddenLayer:
    """The part `relu(x A + a) B`; `rates`: the share of fitted rows on which each unit is on."""

    weights: Float[np.ndarray, "d_model hidden"]
    intercept: Float[np.ndarray, " hidden"]
    output: Float[np.ndarray, "hidden d_reference"]
    rates: Float[np.ndarray, " hidden"]

    def apply(self, x: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "row d_reference"]:
        """What the hidden layer adds to the affine part."""
        return np.maximum(x @ self.weights + self.intercept, 0.0) @ self.output


@dataclass(frozen=True)
class Alignment:
    """The map `x -> x W + b`, plus a hidden layer if it has one.

    `ridge_lambda` is None where the method has no penalty.
    """

    weights: Float[np.ndarray, "d_model d_reference"]
    intercept: Float[np.ndarray, " d_reference"]
    ridge_lambda: float | None
    hidden: HiddenLayer | None = None

    @property
    def jacobian(self) -> Float[np.ndarray, "d_model d_reference"]:
        """The derivative: the weights, or with a hidden layer its mean over the fitted rows."""
        if self.hidden is None:
            return self.weights
        # The derivative of relu is one where the unit is on, so its mean is the rate.
        return self.weights + (self.hidden.weights * self.hidden.rates) @ self.hidden.output

    def apply(self, x: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "row d_reference"]:
        """Activations in the reference's space."""
        mapped = x @ self.weights + self.intercept
        return mapped if self.hidden is None else mapped + self.hidden.apply(x)

    def map(self, direction: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " d_reference"]:
        """A direction (a difference of activations, so without the intercept) in that space."""
        return direction @ self.jacobian

    def pull_back(
        self, axis: Float[np.ndarray, " d_reference"]
    ) -> tuple[Float[np.ndarray, " d_model"], float]:
        """`(v, c)` so that `apply(x) @ axis == x @ v + c`.

        Raises `AxisError` for a map with a hidden layer: use `project`.
        """
        if self.hidden is not None:
            raise AxisError(
                "an alignment with a hidden layer is not affine, no axis can be pulled back "
                "through it: choose another with --alignment, or leave --hidden-width out"
            )
        return self.weights @ axis, float(self.intercept @ axis)

    def project(self, x: Rows, axis: Float[np.ndarray, " d_reference"]) -> Scores:
        """`apply(x) @ axis` for every row, without mapping the rows where the map is affine.

        >>> Alignment(2 * np.eye(2), np.ones(2), None).project(np.eye(2), np.array([1.0, 0.0]))
        array([3., 1.])
        """
        projected = project(x, self.weights @ axis, float(self.intercept @ axis))
        if self.hidden is not None:
            output = self.hidden.output @ axis
            parts = [
                np.maximum(block @ self.hidden.weights + self.hidden.intercept, 0.0) @ output
                for (block,) in blocks(x)
            ]
            projected += np.concatenate(parts)
        return projected

    def project_centred(
        self,
        x: Rows,
        axes: Float[np.ndarray, "d_reference axis"],
        centre: Float[np.ndarray, " d_model"],
    ) -> Float[np.ndarray, "row axis"]:
        """Projections on several axes, each but for a constant: about a centre if affine."""
        if self.hidden is None:
            return project_centred(x, self.weights @ axes, centre)
        return np.stack([self.project(x, axis) for axis in axes.T], axis=1)

    @property
    def effective_rank(self) -> float:
        """The effective number of singular values of the map: `(sum s^2)^2 / sum s^4`.

        The participation ratio; k for k equal ones. Needs products only, no decomposition.
        """
        weights = self.jacobian
        narrow = weights.T if weights.shape[0] > weights.shape[1] else weights
        squares = narrow @ narrow.T
        power = float(np.square(squares).sum())
        return float(np.einsum("ii", squares)) ** 2 / power if power else 0.0
