"""Fit a map from one model's space into a reference's on benign prompts, by any method, no labels.

Whatever a method has to choose (lambda, rank, epochs) is chosen on held-out rows; R2 is measured on
rows that neither the fit nor the choice has seen, and once more with the pairs shuffled, which is
what the same procedure reaches where the two models have nothing in common but their covariances.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from axes.analysis.activations import blocks, mean, take
from axes.analysis.methods import ALIGNMENTS, AlignmentOptions, load
from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.stats.auroc import Estimate, Groups, Labels, null_interval
from axes.analysis.stats.splits import held_out_mask
from axes.warehouse.errors import AlignmentError
from axes.warehouse.layers import Rows

_HELD_OUT_FRACTION = 0.2


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
    options: AlignmentOptions,
    *,
    shuffle_count: int = 0,
    seed: int = 0,
) -> AlignmentFit:
    """Fit the map on paired rows; choose on held-out rows what the options leave open.

    R2 is measured on a fifth of the rows that neither the fit nor a choice has seen; the map that
    is returned is then fitted on all rows.
    """
    width = min(x.shape[1], y.shape[1])
    if options.rank is not None and not 1 <= options.rank <= width:
        raise AlignmentError(
            f"rank {options.rank} is not that of a map from {x.shape[1]} to {y.shape[1]} "
            f"dimensions: give one of 1 to {width}"
        )
    procedure: Procedure = load(ALIGNMENTS[options.method].procedure)(x, options, seed=seed)
    choice = procedure.choose(y)
    total, dimensions = procedure.evaluate(y, choice)
    random = np.random.default_rng(seed)
    shuffled = []
    for _ in range(shuffle_count):
        partners = take(y, procedure.shuffle(random))
        shuffled.append(procedure.evaluate(partners, procedure.choose(partners))[0])
    policy = "given" if options.ridge_lambda is not None else options.lambda_policy
    return AlignmentFit(
        procedure.solve(y, "all", choice),
        total,
        float(np.nanmean(dimensions)),
        method=options.method,
        lambda_policy="none" if choice.ridge_lambda is None else policy,
        rank=choice.rank,
        r2_dimensions=np.nan_to_num(dimensions),
        r2_shuffled=null_interval(np.array(shuffled)) if shuffle_count else None,
        shuffle_count=shuffle_count,
    )


def identity_alignment(d_model: int) -> AlignmentFit:
    """The reference's map into its space."""
    alignment = Alignment(np.eye(d_model), np.zeros(d_model), None)
    return AlignmentFit(alignment, 1.0, 1.0, method="identity", r2_dimensions=np.ones(d_model))


@dataclass(frozen=True)
class Choice:
    """What the options fix or held-out rows choose."""

    ridge_lambda: float | None = None
    rank: int | None = None
    epochs: int = 0


class Procedure(ABC):
    """One method on fixed parts of the rows of `x`, for any `y`; a method overrides `solve`.

    The object lives as long as one fit, so what depends on `x` alone (an eigendecomposition of a
    part) can be kept for the true pairs and all shuffled ones. With `row_count` only the first rows
    are used.
    """

    def __init__(
        self, x: Rows, options: AlignmentOptions, *, seed: int = 0, row_count: int | None = None
    ) -> None:
        self.x, self.options, self.seed = x, options, seed
        count = len(x) if row_count is None else row_count
        self.parts = {
            name: np.concatenate([part, np.zeros(len(x) - count, dtype=bool)])
            for name, part in _parts_of_rows(count, seed).items()
        }

    def choose(self, y: Rows) -> Choice:
        """What the method chooses, by the parts `fitted` and `held_out`; nothing by default."""
        return Choice()

    @abstractmethod
    def solve(self, y: Rows, part: str, choice: Choice) -> Alignment:
        """The map fitted on a part of the rows: `fitted`, `seen` or `all`."""

    def evaluate(self, y: Rows, choice: Choice) -> tuple[float, Float[np.ndarray, " d_reference"]]:
        """R2 on the evaluation rows of the map fitted on all others: total, and by dimension."""
        alignment, baseline = self.solve(y, "seen", choice), mean(y, self.parts["seen"])
        return r_squared(alignment, self.x, y, baseline, where=self.parts["evaluated"])

    def shuffle(self, random: np.random.Generator) -> Groups:
        """A new partner for every row, out of the part that the row is in."""
        order = np.arange(len(self.x))
        for part in ("fitted", "held_out", "evaluated"):
            rows = np.flatnonzero(self.parts[part])
            order[rows] = random.permutation(rows)
        return order


def _parts_of_rows(row_count: int, seed: int) -> dict[str, Labels]:
    """A fifth of the rows to measure R2 on, and a fifth of the others to choose on."""
    evaluated = held_out_mask(row_count, fraction=_HELD_OUT_FRACTION, seed=seed)
    held_out = np.zeros(row_count, dtype=bool)
    held_out[~evaluated] = held_out_mask(
        int((~evaluated).sum()), fraction=_HELD_OUT_FRACTION, seed=seed + 1
    )
    return {
        "fitted": ~evaluated & ~held_out,
        "held_out": held_out,
        "seen": ~evaluated,
        "evaluated": evaluated,
        "all": np.ones(row_count, dtype=bool),
    }


def r_squared(
    alignment: Alignment,
    x: Rows,
    y: Rows,
    baseline: Float[np.ndarray, " d_reference"],
    *,
    where: Labels | None = None,
) -> tuple[float, Float[np.ndarray, " d_reference"]]:
    """`1 - SSE/SST` over all dimensions together, and for each one; NaN where one is constant.

    SST is about `baseline`, the mean of the rows fitted on. The first is what ridge minimises and
    is ruled by dimensions of large variance; the mean of the second weighs every dimension alike.
    """
    errors, totals = np.zeros(y.shape[1]), np.zeros(y.shape[1])
    for block, target in blocks(x, y, where=where):
        errors += np.square(alignment.apply(block) - target).sum(axis=0, dtype=np.float64)
        totals += np.square(baseline - target).sum(axis=0, dtype=np.float64)
    varying = np.where(totals > 0, totals, np.nan)
    return float(1 - errors.sum() / totals.sum()), 1 - errors / varying
