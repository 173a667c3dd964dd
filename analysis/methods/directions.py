"""Directions that separate the positive class from the negative: the positive one projects higher.

A method is prepared on rows, then fitted under any number of labellings: what does not depend on
the labels (a covariance, a scale) is computed once, which is what a null needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from axes.analysis.activations import mean, take
from axes.analysis.methods import DIRECTIONS, find_method, load
from axes.analysis.methods.covariance import shrunk_covariance
from axes.analysis.methods.logistic import logistic_fitter
from axes.analysis.stats.auroc import Estimate, Groups, Labels, auroc_interval
from axes.warehouse.errors import AxisError
from axes.warehouse.layers import Rows


@dataclass(frozen=True)
class Direction:
    """A unit vector and the norm that it had; it needs no warehouse.

    >>> direction = Direction.fit(x_pos=[[3.0, 5.0], [3.0, 7.0]], x_neg=[[0.0, 2.0], [0.0, 4.0]])
    >>> direction.project([1.0, 1.0]).round(3), direction.auroc([[4.0, 5.0]], [[0.0, 0.0]]).estimate
    (np.float64(1.414), 1.0)
    """

    vector: Float[np.ndarray, " d_model"]
    raw_norm: float

    @classmethod
    def fit(cls, x_pos: ArrayLike, x_neg: ArrayLike, *, direction: str = "mean_diff") -> Direction:
        """The direction from the rows `x_neg` to `x_pos`, each `[row, d_model]`: arrays or tensors.

        `direction` is a method of `axes fit`; for `pair_pca` row i of both is a pair. Raises
        `AxisError` for shapes that do not fit, an empty class, NaN or infinity, or where it finds
        no direction.
        """
        positive, negative = _finite_rows(x_pos, "x_pos"), _finite_rows(x_neg, "x_neg")
        shapes = (positive.shape, negative.shape)
        if {len(shape) for shape in shapes} != {2} or shapes[0][1] != shapes[1][1]:
            raise AxisError(f"x_pos and x_neg are not [row, d_model] of one width: {shapes}")
        if not all(map(len, (positive, negative))):
            raise AxisError("x_pos and x_neg need a row each")
        labels = np.repeat([True, False], [len(positive), len(negative)])
        groups = np.concatenate([np.arange(len(positive)), np.arange(len(negative))])
        return fit_direction(direction, np.concatenate([positive, negative]), labels, groups)

    def project(self, x: ArrayLike) -> Float[np.ndarray, " *batch"]:
        """Projections `[...]` of `[..., d_model]`, an array or a tensor; raises `AxisError`."""
        values = float_rows(x)
        width = values.shape[-1] if values.ndim else 0
        if width != len(self.vector):
            raise AxisError(f"activations of {width} numbers do not fit {len(self.vector)}")
        return values @ self.vector.astype(np.float64)

    def auroc(self, x_pos: ArrayLike, x_neg: ArrayLike) -> Estimate:
        """AUROC of the projections, with DeLong's 95 % interval; for rows it was not fitted on.

        Raises `AxisError` for rows of another width, NaN or infinity.
        """
        named = (("x_pos", x_pos), ("x_neg", x_neg))
        scores = [self.project(_finite_rows(x, name)) for name, x in named]
        labels = np.repeat([True, False], list(map(len, scores)))
        return auroc_interval(np.concatenate(scores), labels)


Fitter = Callable[[Labels], Float[np.ndarray, " d_model"]]


def direction_fitter(method: str, x: Rows, groups: Groups, where: Labels | None = None) -> Fitter:
    """Labels of all rows -> what a method fits on those `where` is true, not scaled to unit length.

    Zero where the method finds no direction. `groups` numbers the rows of a pair alike. Raises
    `AxisError` for an unknown method.
    """
    return load(find_method("direction", DIRECTIONS, method, AxisError).fitter)(x, groups, where)


def fit_direction(
    method: str, x: Rows, labels: Labels, groups: Groups, where: Labels | None = None
) -> Direction:
    """The unit direction of a method; raises `AxisError` where it finds none."""
    return unit(direction_fitter(method, x, groups, where)(labels))


def difference_in_means(x: Rows, labels: Labels, where: Labels | None = None) -> Direction:
    """Mean of the positive rows minus mean of the negative ones, in float64 (Rimsky et al. 2024).

    >>> difference_in_means(np.array([[0.0, 1.0], [3.0, 5.0]]), np.array([False, True])).raw_norm
    5.0
    """
    return unit(_difference(x, labels, where))


def float_rows(x: ArrayLike) -> Float[np.ndarray, "*batch d_model"]:
    """Activations in float64; a tensor of torch may have any dtype, device and gradient."""
    # NumPy takes no bfloat16, no gradient and no other device.
    plain: Any = x.detach().cpu().double() if hasattr(x, "detach") else x
    return np.asarray(plain, dtype=np.float64)


def _finite_rows(x: ArrayLike, name: str) -> Float[np.ndarray, "*batch d_model"]:
    values = float_rows(x)
    if not np.isfinite(values).all():
        raise AxisError(f"{name} holds NaN or infinity: leave those rows out")
    return values


def cosine(first: Float[np.ndarray, " d"], second: Float[np.ndarray, " d"]) -> float:
    """Of two vectors; 0 where one is the zero vector."""
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    # Of stored float32 vectors the quotient may exceed 1 by rounding.
    return float(np.clip(first @ second / norms, -1.0, 1.0)) if norms else 0.0


def unit(vector: Float[np.ndarray, " d_model"]) -> Direction:
    """Scale to unit length; raises `AxisError` for the zero vector."""
    norm = float(np.linalg.norm(vector))
    if norm == 0.0:
        raise AxisError("the direction is zero: the two classes have the same mean")
    return Direction(vector / norm, norm)


def mean_diff(x: Rows, _groups: Groups, where: Labels | None) -> Fitter:
    """Mean of the positive rows minus mean of the negative ones."""
    return lambda labels: _difference(x, labels, where)


def whitened(x: Rows, _groups: Groups, where: Labels | None) -> Fitter:
    """Linear discriminant analysis (Fisher 1936) with a shrunk covariance.

    The covariance is that of all rows about their common mean: it differs from the one within
    classes by a multiple of the difference's outer product, which changes the length of the
    solution and not its direction.
    """
    covariance = shrunk_covariance(x, where)
    return lambda labels: covariance.solve(_difference(x, labels, where))


def logistic(x: Rows, _groups: Groups, where: Labels | None) -> Fitter:
    """The weights of a logistic regression with an L2 penalty."""
    return logistic_fitter(x, where)


def pair_pca(x: Rows, groups: Groups, where: Labels | None) -> Fitter:
    """The first principal component of the differences within matched pairs, not centred.

    Zou et al. 2023 (arXiv 2310.01405) centre; centring the differences would take away their mean,
    and that is the concept.
    """
    return lambda labels: leading_difference(pair_differences(x, labels, groups, where))


def _difference(x: Rows, labels: Labels, where: Labels | None) -> Float[np.ndarray, " d_model"]:
    # Means in float64: residual norms reach 1e4 and the difference is small beside them.
    seen = np.ones(len(x), dtype=bool) if where is None else where
    return mean(x, seen & labels) - mean(x, seen & ~labels)


def pair_differences(
    x: Rows, labels: Labels, groups: Groups, where: Labels | None = None
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
    # Rows of a pair next to each other, so that sums over pairs are one `reduceat` from the first
    # row of each pair: values [row, d_model] -> sums [pair, d_model].
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
    # Only the leading vector is needed: the products of the smaller side, [pair, pair] or
    # [d_model, d_model], have it as their last eigenvector.
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
