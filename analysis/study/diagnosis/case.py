"""The input of a diagnosis: a model on a labelled set, its map and the axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from axes.analysis.activations import project
from axes.analysis.methods.directions import cosine, difference_in_means
from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.stats.auroc import Estimate, Groups, Labels, Scores, auroc_interval
from axes.warehouse.layers import Rows


@dataclass(frozen=True)
class Finding:
    """The result of one check; `figures` are the numbers that it rests on.

    A fault is a cause that explains the AUROC, or forbids a conclusion from it.
    """

    check: str
    is_fault: bool
    verdict: str
    figures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, check: str, is_fault: bool, fault: str, healthy: str, figures: Mapping[str, float]
    ) -> Finding:
        """A finding whose verdict is `fault` or `healthy`."""
        return cls(check, is_fault, fault if is_fault else healthy, figures)


@dataclass(frozen=True)
class Case:
    """The rows, the map and the axis behind one AUROC of a shared axis.

    `direction` is the model's unit direction, fitted on `fitted_x`; `reference_x` holds the
    reference's activations of the rows of `x`; `benign_x` and `benign_reference_x` are the rows of
    the alignment, and the reference itself is mapped by the identity. `premises` are
    those of the claims that fail, each with its cause; `stored` the projections that the AUROC was
    computed from, where stored.
    """

    x: Rows
    labels: Labels
    groups: Groups
    reference_x: Rows
    fitted_x: Rows
    fitted_labels: Bool[np.ndarray, " fitted_row"]
    benign_x: Rows
    benign_reference_x: Rows
    alignment: Alignment
    direction: Float[np.ndarray, " d_model"]
    axis: Float[np.ndarray, " d_reference"]
    is_in_sample: bool
    is_reference: bool = False
    premises: Mapping[str, str] = field(default_factory=dict)
    stored: Scores | None = None


@dataclass(frozen=True)
class View:
    """A case along its axis.

    `cosine` is that of the aligned direction with the axis, `mean_cosine` that of the difference in
    means of the fitted rows, `cosine_here` of the evaluated rows; `gap` is the distance of the
    class means along the axis, `deviation` the standard deviation within a class.
    """

    scores: Scores
    area: Estimate
    native: Estimate
    cosine: float
    mean_cosine: float
    cosine_here: float
    gap: float
    deviation: float


def look(case: Case) -> View:
    """Project the rows on the axis, and map the differences in means into its space."""
    scores = case.alignment.project(case.x, case.axis)
    positive, negative = scores[case.labels], scores[~case.labels]

    def mapped_cosine(direction: Float[np.ndarray, " d_model"]) -> float:
        return cosine(case.alignment.map(direction), case.axis)

    return View(
        scores=scores,
        area=auroc_interval(scores, case.labels),
        native=auroc_interval(project(case.x, case.direction), case.labels),
        cosine=mapped_cosine(case.direction),
        mean_cosine=mapped_cosine(difference_in_means(case.fitted_x, case.fitted_labels).vector),
        cosine_here=mapped_cosine(difference_in_means(case.x, case.labels).vector),
        gap=float(positive.mean() - negative.mean()),
        deviation=float(np.sqrt((positive.var(ddof=1) + negative.var(ddof=1)) / 2)),
    )
