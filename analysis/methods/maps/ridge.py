"""Ridge regression between two spaces: every lambda from one eigendecomposition.

Minimise `sum |x W + b - y|^2 + lambda |W|^2` over `W` and the free `b`. With sums about the
means `S_xx = U diag(s) U'`, the weights are `W = U diag(1 / (s + lambda)) U' S_xy` (Hoerl and
Kennard 1970). Where there are fewer rows than dimensions the decomposition is that of the rows'
products, `X X' = Q diag(s) Q'`, and `W = X' Q diag(1 / (s + lambda)) Q' Y`: the same weights from a
smaller matrix. Both are `basis @ diag(1 / (s + lambda)) @ rotated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import blocks, mean
from axes.analysis.methods import LAMBDA_POLICIES, load
from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.methods.maps.alignment import Choice, Procedure
from axes.analysis.stats.auroc import Labels
from axes.warehouse.layers import Rows

# Ten to the -2, -1.5, ..., 8: lambda is in squared units of the activations.
LAMBDA_GRID = tuple(float(value) for value in np.logspace(-2, 8, 21))
# Rows in an eigenbasis that are kept for further `y`, in float64.
_COMPONENT_BYTES = 32 << 20


class Ridge(Procedure):
    """The ridge map; lambda is set, or chosen by a policy."""

    @cached_property
    def _spectra(self) -> dict[str, Spectrum]:
        return {}

    def choose(self, y: Rows) -> Choice:
        """Lambda, where it is not set: the one of least error, by the policy."""
        ridge_lambda = self.options.ridge_lambda
        if ridge_lambda is None:
            errors = load(LAMBDA_POLICIES[self.options.lambda_policy])(self, y)
            ridge_lambda = LAMBDA_GRID[int(np.argmin(errors))]
        return Choice(ridge_lambda)

    def solve(self, y: Rows, part: str, choice: Choice) -> Alignment:
        """The minimiser on a part of the rows."""
        assert choice.ridge_lambda is not None
        return self.path(y, part).solve(choice.ridge_lambda)

    def path(self, y: Rows, part: str) -> RidgePath:
        """The maps of a part for every lambda; a part of `x` is decomposed once for all `y`."""
        spectrum = self._spectra.get(part)
        spectrum = spectrum and spectrum.with_components(self.x)
        path = RidgePath.of_rows(self.x, y, self.parts[part], spectrum)
        self._spectra[part] = path.spectrum
        return path


def held_out_errors(procedure: Ridge, y: Rows) -> Float[np.ndarray, " lambda"]:
    """Squared error of every lambda on the held-out rows."""
    path = procedure.path(y, "fitted")
    return path.held_out_errors(procedure.x, y, procedure.parts["held_out"])


def generalised_cross_validation(procedure: Ridge, y: Rows) -> Float[np.ndarray, " lambda"]:
    """The generalised cross-validation error of every lambda on the rows that R2 leaves over."""
    return procedure.path(y, "seen").cross_validated_errors()


@dataclass(frozen=True)
class RidgePath:
    """The weights for every lambda; `totals`: sum of squares of each `y` about its mean."""

    spectrum: Spectrum
    count: int
    mean_y: Float[np.ndarray, " d_reference"]
    rotated: Float[np.ndarray, "component d_reference"]
    totals: Float[np.ndarray, " d_reference"]

    @classmethod
    def of_rows(
        cls, x: Rows, y: Rows, where: Labels | None = None, spectrum: Spectrum | None = None
    ) -> RidgePath:
        """From rows, the cheaper way; `spectrum` saves a decomposition that was computed before.

        >>> x = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
        >>> RidgePath.of_rows(x, x).solve(0.5).apply(x)[:, 0].round(6).tolist()
        [0.2, 1.8]
        """
        count = len(x) if where is None else int(where.sum())
        if spectrum is None and count >= x.shape[1]:
            return RidgeFitter(x.shape[1], y.shape[1]).update_all(x, y, where).path()
        spectrum = spectrum or Spectrum.of_few_rows(x, where)
        mean_y = mean(y, where)
        totals = np.zeros(len(mean_y))
        for (target,) in blocks(y, where=where):
            totals += np.square(target - mean_y).sum(axis=0)
        kept = spectrum.components
        left = spectrum.rotation if kept is None else kept[where]
        if left is None:
            rotated = spectrum.basis.T @ cross_products(x, y, spectrum.mean, mean_y, where=where)
        else:
            targets = np.concatenate([block - mean_y for (block,) in blocks(y, where=where)])
            rotated = left.T @ targets
        return cls(spectrum, count, mean_y, rotated, totals)

    @property
    def scale(self) -> Float[np.ndarray, " component"]:
        """`S_xy' (S_xx + lambda)^-1 S_xy == rotated' diag(scale / (values + lambda)) rotated`."""
        values = self.spectrum.values
        return np.ones_like(values) if self.spectrum.rotation is None else values

    def solve(self, ridge_lambda: float) -> Alignment:
        """The minimiser for one lambda."""
        shrunk = self.rotated / (self.spectrum.values + ridge_lambda)[:, None]
        weights = self.spectrum.basis @ shrunk
        return Alignment(weights, self.mean_y - self.spectrum.mean @ weights, ridge_lambda)

    def map(
        self, direction: Float[np.ndarray, " d_model"], ridge_lambda: float
    ) -> Float[np.ndarray, " d_reference"]:
        """What `solve(ridge_lambda).map` gives, without forming the weights."""
        shrunk = direction @ self.spectrum.basis / (self.spectrum.values + ridge_lambda)
        return shrunk @ self.rotated

    def pull_back(
        self, axis: Float[np.ndarray, " d_reference"], ridge_lambda: float
    ) -> Float[np.ndarray, " d_model"]:
        """`v` so that `align(x) @ axis` is `x @ v` and a constant, without forming the weights."""
        return self.spectrum.basis @ (self.rotated @ axis / (self.spectrum.values + ridge_lambda))

    def cross_validated_errors(
        self, lambdas: Sequence[float] = LAMBDA_GRID
    ) -> Float[np.ndarray, " lambda"]:
        """Generalised cross-validation, `(SSE / n) / (1 - df / n)^2` (Golub, Heath, Wahba 1979).

        `df` is one for the intercept plus `sum s / (s + lambda)`. No row is read again. Infinite
        where the fit uses up all degrees of freedom.
        """
        values, power = self.spectrum.values, self.scale * np.square(self.rotated).sum(axis=1)
        errors = []
        for ridge_lambda in lambdas:
            sums = values + ridge_lambda
            error = self.totals.sum() - (power * (values + 2 * ridge_lambda) / sums**2).sum()
            left = 1 - (1 + (values / sums).sum()) / self.count
            errors.append(error / self.count / left**2 if left > 0 else np.inf)
        return np.array(errors)

    def held_out_errors(self, x: Rows, y: Rows, where: Labels) -> Float[np.ndarray, " lambda"]:
        """Squared error of every lambda's map on rows that were not fitted, in one pass.

        From the sums of products of those rows where that takes fewer operations than mapping the
        rows once for each lambda.
        """
        rows, width, targets = int(where.sum()), x.shape[1], y.shape[1]
        components = len(self.spectrum.values)
        # Multiplications of either way: rows to components and from there to targets for each
        # lambda; or the sums of products (half of a symmetric one) and their turn into components.
        mapped = rows * components * (width + len(LAMBDA_GRID) * targets)
        summed = rows * width * (width / 2 + targets)
        summed += components * (width * (width + components + targets) + components * targets / 2)
        if mapped <= summed:
            return self._errors_by_rows(x, y, where)
        return self._errors_by_sums(x, y, where)

    def _errors_by_rows(self, x: Rows, y: Rows, where: Labels) -> Float[np.ndarray, " lambda"]:
        errors = np.zeros(len(LAMBDA_GRID))
        for block, target in blocks(x, y, where=where):
            rotated = (block - self.spectrum.mean) @ self.spectrum.basis
            centred = target - self.mean_y
            for index, ridge_lambda in enumerate(LAMBDA_GRID):
                shrunk = rotated / (self.spectrum.values + ridge_lambda)
                errors[index] += np.square(shrunk @ self.rotated - centred).sum()
        return errors

    def _errors_by_sums(self, x: Rows, y: Rows, where: Labels) -> Float[np.ndarray, " lambda"]:
        """`|Y|^2 - 2 tr(W' X'Y) + tr(W' X'X W)` with `W` in the eigenbasis.

        With `W = B diag(s) R` (basis `[d_model, component]`, shrinkage `s`, rotated
        `[component, d_reference]`) the traces are sums over components alone:
        `tr(W' X'Y) = sum_i s_i (B' X'Y R')_ii` and
        `tr(W' X'X W) = sum_ij s_i s_j (B' X'X B)_ij (R R')_ij`,
        so that the rows are read once and a lambda costs one product of `[component, component]`.
        """
        if self.spectrum.components is not None:
            rows = self.spectrum.components[where]
            targets = np.concatenate([block - self.mean_y for (block,) in blocks(y, where=where)])
            total = float(np.square(targets).sum())
            return self._errors(total, rows.T @ targets, rows.T @ rows)
        basis = self.spectrum.basis
        centre, total = self.spectrum.mean, 0.0
        xx = np.zeros((len(centre), len(centre)))
        xy = np.zeros((len(centre), len(self.mean_y)))
        for block, target in blocks(x, y, where=where):
            rows, targets = block - centre, target - self.mean_y
            xx += rows.T @ rows
            xy += rows.T @ targets
            total += float(np.square(targets).sum())
        return self._errors(total, basis.T @ xy, basis.T @ xx @ basis)

    def _errors(self, total: float, xy: np.ndarray, xx: np.ndarray) -> np.ndarray:
        linear = np.einsum("ij,ij->i", xy, self.rotated)  # the diagonal only
        quadratic = xx * (self.rotated @ self.rotated.T)
        shrinkages = [1 / (self.spectrum.values + ridge_lambda) for ridge_lambda in LAMBDA_GRID]
        return np.array(
            [total - 2 * each @ linear + each @ quadratic @ each for each in shrinkages]
        )


@dataclass(frozen=True)
class Spectrum:
    """The variance of the rows of one space about their mean; `rotation` is set with few rows.

    `components` are all rows of `x` in the eigenbasis, where several `y` are fitted.
    """

    mean: Float[np.ndarray, " d_model"]
    values: Float[np.ndarray, " component"]
    basis: Float[np.ndarray, "d_model component"]
    rotation: Float[np.ndarray, "row component"] | None = None
    components: Float[np.ndarray, "every component"] | None = None

    def with_components(self, x: Rows) -> Spectrum:
        """The same with `components`, unless they are many or it has a `rotation`."""
        is_large = 8 * len(x) * len(self.values) > _COMPONENT_BYTES
        if self.components is not None or self.rotation is not None or is_large:
            return self
        rotated = [(block - self.mean) @ self.basis for (block,) in blocks(x)]
        return replace(self, components=np.concatenate(rotated))

    @classmethod
    def of_few_rows(cls, x: Rows, where: Labels | None = None) -> Spectrum:
        """From the rows themselves, where there are fewer of them than dimensions."""
        centre = mean(x, where)
        centred = np.concatenate([block - centre for (block,) in blocks(x, where=where)])
        values, rotation = np.linalg.eigh(centred @ centred.T)
        return cls(centre, values.clip(min=0.0), centred.T @ rotation, rotation)


@dataclass(frozen=True)
class Moments:
    """Count, means, and sums of products about the means, of pairs `(x, y)`."""

    count: int
    mean_x: Float[np.ndarray, " d_model"]
    mean_y: Float[np.ndarray, " d_reference"]
    xx: Float[np.ndarray, "d_model d_model"]
    xy: Float[np.ndarray, "d_model d_reference"]
    yy: Float[np.ndarray, "d_reference d_reference"]


class RidgeFitter:
    """Accumulates pairs `(x, y)`; what is fitted from `moments()` needs no row again."""

    def __init__(self, d_model: int, d_reference: int) -> None:
        self.count = 0
        self._sum_x = np.zeros(d_model)
        self._sum_y = np.zeros(d_reference)
        self._xx = np.zeros((d_model, d_model))
        self._xy = np.zeros((d_model, d_reference))
        self._yy = np.zeros((d_reference, d_reference))
        self._shift: tuple[np.ndarray, np.ndarray] | None = None

    def update(
        self, x: Float[np.ndarray, "row d_model"], y: Float[np.ndarray, "row d_reference"]
    ) -> Self:
        """Add rows, in float64."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        if self._shift is None:
            # Sums about a point near the mean: all activations share a large one, and taking it
            # away after summing squares would lose the digits that matter.
            self._shift = x.mean(axis=0), y.mean(axis=0)
        x -= self._shift[0]
        y -= self._shift[1]
        self.count += len(x)
        self._sum_x += x.sum(axis=0)
        self._sum_y += y.sum(axis=0)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._yy += y.T @ y
        return self

    def update_all(self, x: Rows, y: Rows, where: Labels | None = None) -> Self:
        """Add all rows, or those `where` is true, block by block."""
        for pair in blocks(x, y, where=where):
            self.update(*pair)
        return self

    def moments(self) -> Moments:
        """The sums of the rows so far; raises `ValueError` where there are none."""
        if self._shift is None:
            raise ValueError("no rows were added")
        mean_x, mean_y = self._sum_x / self.count, self._sum_y / self.count
        return Moments(
            self.count,
            self._shift[0] + mean_x,
            self._shift[1] + mean_y,
            self._xx - self.count * np.outer(mean_x, mean_x),
            self._xy - self.count * np.outer(mean_x, mean_y),
            self._yy - self.count * np.outer(mean_y, mean_y),
        )

    def path(self) -> RidgePath:
        """The ridge maps of the rows so far for every lambda, from one eigendecomposition."""
        moments = self.moments()
        values, basis = np.linalg.eigh(moments.xx)
        return RidgePath(
            Spectrum(moments.mean_x, values.clip(min=0.0), basis),
            moments.count,
            moments.mean_y,
            basis.T @ moments.xy,
            moments.yy.diagonal(),
        )

    def solve(self, ridge_lambda: float) -> Alignment:
        """The ridge map of the rows so far for one lambda."""
        return self.path().solve(ridge_lambda)


def cross_products(
    x: Rows,
    y: Rows,
    mean_x: Float[np.ndarray, " d_model"],
    mean_y: Float[np.ndarray, " d_reference"],
    *,
    where: Labels | None = None,
) -> Float[np.ndarray, "d_model d_reference"]:
    """Sum over the rows of `(x - mean_x)' (y - mean_y)`, in float64."""
    total = np.zeros((len(mean_x), len(mean_y)))
    for block, target in blocks(x, y, where=where):
        total += (block - mean_x).T @ (target - mean_y)
    return total
