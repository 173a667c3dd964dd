"""Fit a map from one model's space into a reference's on benign prompts, by any method, no labels.

Whatever a method has to choose (lambda, rank, epochs) is chosen on held-out rows; R2 is judged on
rows that neither the fit nor the choice has seen, and once more with the pairs shuffled, which is
what the same procedure reaches where the two models have nothing in common but their spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.activations import blocks, mean, take
from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.gradient import Shape, choose_epochs, train
from axes.analysis.methods.low_rank import ProcrustesFitter, RankPath, rank_path
from axes.analysis.methods.ridge import LAMBDA_GRID, RidgePath, Spectrum, cross_products
from axes.analysis.stats.auroc import Estimate, spread
from axes.analysis.stats.splits import held_out_mask
from axes.warehouse.errors import AlignmentError
from axes.warehouse.layers import Rows

METHODS = ("ridge", "procrustes", "reduced_rank", "cca", "gradient")
LAMBDA_POLICIES = ("held_out", "gcv")

_WITH_LAMBDA = ("ridge", "reduced_rank", "cca")

_HELD_OUT_FRACTION = 0.2

Mask = Bool[np.ndarray, " row"]


@dataclass(frozen=True)
class AlignmentOptions:
    """Which map, and what of it is given; None: chosen on held-out rows, or left out.

    `rank` is for `reduced_rank`, `cca` and `gradient` (whose weights are full without),
    `hidden_width` for `gradient`, `is_scaled` for `procrustes`.
    """

    method: str = "ridge"
    ridge_lambda: float | None = None
    lambda_policy: str = "held_out"
    rank: int | None = None
    hidden_width: int | None = None
    is_scaled: bool = True

    def __post_init__(self) -> None:
        takes = {
            "ridge_lambda": _WITH_LAMBDA,
            "rank": ("reduced_rank", "cca", "gradient"),
            "hidden_width": ("gradient",),
        }
        if self.method not in METHODS:
            raise AlignmentError(f"no alignment {self.method}: there are {', '.join(METHODS)}")
        for name, methods in takes.items():
            if getattr(self, name) is not None and self.method not in methods:
                raise AlignmentError(
                    f"the alignment {self.method} has no {name}: leave it out, "
                    f"or choose {' or '.join(methods)}"
                )

    @property
    def has_lambda(self) -> bool:
        return self.method in _WITH_LAMBDA


@dataclass(frozen=True)
class AlignmentFit:
    """An alignment fitted on all rows, and how the same procedure did on rows it had not seen.

    `r2_held_out` is `1 - SSE/SST` over all dimensions together, `r2_uniform` the mean of
    `r2_dimensions`; `r2_shuffled` is the first of these over shufflings of the pairs, its mean with
    the 5th and 95th percentile.
    `lambda_policy` is `given`, `held_out` or `gcv`, and `none` where there is no lambda.
    """

    alignment: Alignment
    r2_held_out: float
    r2_uniform: float
    method: str = "ridge"
    lambda_policy: str = "given"
    rank: int | None = None
    r2_dimensions: Float[np.ndarray, " d_reference"] | None = None
    r2_shuffled: Estimate | None = None
    shuffle_count: int = 0


def fit_alignment(
    x: Rows,
    y: Rows,
    options: AlignmentOptions | None = None,
    *,
    ridge_lambda: float | None = None,
    shuffle_count: int = 0,
    seed: int = 0,
) -> AlignmentFit:
    """Fit the map on paired rows; choose what is not given on held-out rows.

    R2 is judged on a fifth of the rows that neither the fit nor a choice has seen; the map that is
    returned is then fitted on all rows. `ridge_lambda` is short for options with that lambda.
    """
    options = options or AlignmentOptions(ridge_lambda=ridge_lambda)
    width = min(x.shape[1], y.shape[1])
    if options.rank is not None and not 1 <= options.rank <= width:
        raise AlignmentError(
            f"rank {options.rank} is not that of a map from {x.shape[1]} to {y.shape[1]} "
            f"dimensions: give one of 1 to {width}"
        )
    procedure = _Procedure(x, options, seed)
    choice = procedure.choose(y)
    total, dimensions = procedure.judge(y, choice)
    random = np.random.default_rng(seed)
    shuffled = []
    for _ in range(shuffle_count):
        other = take(y, procedure.shuffle(random))
        shuffled.append(procedure.judge(other, procedure.choose(other))[0])
    policy = "given" if options.ridge_lambda is not None else options.lambda_policy
    return AlignmentFit(
        procedure.solve(y, "all", choice),
        total,
        float(np.nanmean(dimensions)),
        method=options.method,
        lambda_policy="none" if choice.ridge_lambda is None else policy,
        rank=choice.rank,
        r2_dimensions=np.nan_to_num(dimensions),
        r2_shuffled=spread(np.array(shuffled)) if shuffle_count else None,
        shuffle_count=shuffle_count,
    )


def identity_alignment(d_model: int) -> AlignmentFit:
    """The reference's own map."""
    alignment = Alignment(np.eye(d_model), np.zeros(d_model), None)
    return AlignmentFit(alignment, 1.0, 1.0, method="identity", r2_dimensions=np.ones(d_model))


def r_squared(
    alignment: Alignment,
    x: Rows,
    y: Rows,
    baseline: Float[np.ndarray, " d_reference"],
    *,
    where: Mask | None = None,
) -> tuple[float, Float[np.ndarray, " d_reference"]]:
    """`1 - SSE/SST` over all dimensions together, and for each one; NaN where one is constant.

    SST is about `baseline`, the mean of the rows fitted on. The first is what ridge minimises and
    is ruled by dimensions of large variance; the mean of the second weighs every dimension alike.
    """
    errors, spread = np.zeros(y.shape[1]), np.zeros(y.shape[1])
    for block, target in blocks(x, y, where=where):
        errors += np.square(alignment.apply(block) - target).sum(axis=0, dtype=np.float64)
        spread += np.square(baseline - target).sum(axis=0, dtype=np.float64)
    live = np.where(spread > 0, spread, np.nan)
    return float(1 - errors.sum() / spread.sum()), 1 - errors / live


def parts_of_rows(row_count: int, *, seed: int) -> dict[str, Mask]:
    """Which rows are for what: a fifth to judge R2, a fifth of the others to choose on."""
    judged = held_out_mask(row_count, fraction=_HELD_OUT_FRACTION, seed=seed)
    held_out = np.zeros(row_count, dtype=bool)
    held_out[~judged] = held_out_mask(
        int((~judged).sum()), fraction=_HELD_OUT_FRACTION, seed=seed + 1
    )
    return {
        "fitted": ~judged & ~held_out,
        "held_out": held_out,
        "seen": ~judged,
        "judged": judged,
        "all": np.ones(row_count, dtype=bool),
    }


@dataclass(frozen=True)
class _Choice:
    """What was given or chosen."""

    ridge_lambda: float | None = None
    rank: int | None = None
    epochs: int = 0


class _Procedure:
    """One method on fixed parts of the rows of `x`, for any `y`.

    What depends on `x` alone, the eigendecompositions of its parts, is done once for the true pairs
    and all shuffled ones.
    """

    def __init__(self, x: Rows, options: AlignmentOptions, seed: int) -> None:
        self._x, self._options, self._seed = x, options, seed
        self._parts = parts_of_rows(len(x), seed=seed)
        self._spectra: dict[str, Spectrum] = {}

    def choose(self, y: Rows) -> _Choice:
        """Lambda, rank or epochs, by held-out rows; the judged ones are not touched."""
        method = self._options.method
        fitted, held_out = self._parts["fitted"], self._parts["held_out"]
        if method == "procrustes":
            return _Choice()
        if method == "gradient":
            epochs = choose_epochs(self._x, y, fitted, held_out, self._shape, seed=self._seed)
            return _Choice(rank=self._options.rank, epochs=epochs)
        ridge_lambda, rank = self._options.ridge_lambda, self._options.rank
        if ridge_lambda is None and self._options.lambda_policy == "gcv":
            errors = self._path(y, "seen").cross_validated_errors()
            ridge_lambda = LAMBDA_GRID[int(np.argmin(errors))]
        elif ridge_lambda is None:
            errors = self._path(y, "fitted").held_out_errors(self._x, y, held_out)
            ridge_lambda = LAMBDA_GRID[int(np.argmin(errors))]
        if method != "ridge" and rank is None:
            ranked = self._ranks(y, "fitted", ridge_lambda)
            rank = int(np.argmin(ranked.held_out_errors(self._x, y, held_out))) + 1
        return _Choice(ridge_lambda, rank)

    def solve(self, y: Rows, part: str, choice: _Choice) -> Alignment:
        """The map fitted on a part of the rows."""
        where = self._parts[part]
        if self._options.method == "procrustes":
            fitter = ProcrustesFitter(self._x.shape[1], y.shape[1]).update_all(self._x, y, where)
            return fitter.solve(is_scaled=self._options.is_scaled)
        if self._options.method == "gradient":
            return train(self._x, y, where, self._shape, choice.epochs, seed=self._seed)
        assert choice.ridge_lambda is not None
        if choice.rank is None:
            return self._path(y, part).solve(choice.ridge_lambda)
        return self._ranks(y, part, choice.ridge_lambda).solve(choice.rank)

    def judge(self, y: Rows, choice: _Choice) -> tuple[float, Float[np.ndarray, " d_reference"]]:
        """R2 on the judged rows of the map fitted on all others: total, and by dimension."""
        alignment, baseline = self.solve(y, "seen", choice), mean(y, self._parts["seen"])
        return r_squared(alignment, self._x, y, baseline, where=self._parts["judged"])

    def shuffle(self, random: np.random.Generator) -> Int[np.ndarray, " row"]:
        """A new partner for every row, out of its own part."""
        order = np.arange(len(self._x))
        for part in ("fitted", "held_out", "judged"):
            rows = np.flatnonzero(self._parts[part])
            order[rows] = random.permutation(rows)
        return order

    @property
    def _shape(self) -> Shape:
        return Shape(self._options.rank, self._options.hidden_width)

    def _path(self, y: Rows, part: str) -> RidgePath:
        path = RidgePath.of_rows(self._x, y, self._parts[part], self._spectra.get(part))
        self._spectra[part] = path.spectrum
        return path

    def _ranks(self, y: Rows, part: str, ridge_lambda: float) -> RankPath:
        path = self._path(y, part)
        products = None
        if self._options.method == "cca":
            centre = path.mean_y
            products = cross_products(y, y, centre, centre, where=self._parts[part])
        return rank_path(path, ridge_lambda, products)
