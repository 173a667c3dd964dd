"""From a model's projections to a scale that models share, and a threshold on it.

Projections of two models have different centres and widths, so a number means nothing across
models. A calibration is a non-decreasing map from one model's scores into 0 ... 1, fitted on
calibration rows that nothing is evaluated on (docs/methods.md, Calibration). `platt` and `isotonic`
estimate the chance of the positive class at the calibration rows' class balance; `quantile` and
`z_score` take no labels and are a common scale only. None ever reverses a ranking: an axis that
ranks in reverse gets a flat map, not a silent change of sign.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from axes.analysis.methods import find_method, load
from axes.analysis.stats import CALIBRATIONS
from axes.analysis.stats.auroc import Labels, Scores, midranks
from axes.analysis.stats.minimize import minimize
from axes.warehouse.errors import CalibrationError

BALANCED_ACCURACY = "balanced_accuracy"

_TARGET = re.compile(r"fpr=(0(?:\.\d+)?|1)")
# Knots of a quantile map; between two of them it is a straight line.
_KNOT_COUNT = 1001

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Calibration:
    """A model's scores on a common scale, and the threshold chosen on its calibration rows.

    `threshold` is in the units of the scores: a score at or above it is positive. `parameters` are
    `slope` and `intercept` (platt, z_score), or knots `x`, `y` with straight lines between them and
    constant beyond (isotonic, quantile).
    """

    method: str
    target: str
    threshold: float
    parameters: Parameters
    positive_count: int
    negative_count: int

    def probability(self, scores: Scores) -> Scores:
        """The scores on the common scale, 0 ... 1, never decreasing in the score."""
        if "slope" in self.parameters:
            from scipy.special import expit

            return expit(self.parameters["slope"] * scores + self.parameters["intercept"])
        return np.interp(scores, self.parameters["x"], self.parameters["y"])


def fit_calibration(
    scores: Scores, labels: Labels, method: str = "platt", *, target: str = BALANCED_ACCURACY
) -> Calibration:
    """Fit a map and a threshold on one model's calibration rows.

    `target` is `balanced_accuracy` (the same cut as Youden's J, which is twice it less 1) or
    `fpr=0.05`: the cut of most true positives among those with at most that false-positive rate.
    Raises `CalibrationError` for an unknown method or target, for a missing class, and where all
    scores are equal.

    >>> fitted = fit_calibration(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1], dtype=bool))
    >>> fitted.threshold, bool(fitted.probability(np.array([3.0]))[0] > 0.5)
    (1.5, True)
    """
    scores = scores.astype(np.float64)
    positive_count = int(labels.sum())
    negative_count = len(labels) - positive_count
    calibration = find_method("calibration", CALIBRATIONS, method, CalibrationError)
    if not positive_count or not negative_count:
        raise CalibrationError(
            f"{positive_count} positive and {negative_count} negative calibration rows: "
            "both classes are needed"
        )
    if scores.min() == scores.max():
        raise CalibrationError("all calibration scores are equal: there is nothing to calibrate")
    parameters = load(calibration)(scores, labels)
    threshold = choose_threshold(scores, labels, target)
    return Calibration(method, target, threshold, parameters, positive_count, negative_count)


def choose_threshold(scores: Scores, labels: Labels, target: str = BALANCED_ACCURACY) -> float:
    """The cut that meets `target` best on these rows; scores at or above it count as positive.

    Cuts lie midway between neighbouring scores. Of several equally good the highest is taken, which
    has the fewest false positives. Raises `CalibrationError` for an unknown target.
    """
    values = np.unique(scores)
    at = np.searchsorted(values, scores)
    # Rows at or above each distinct score, and none above the highest.
    above = [
        np.append(np.bincount(at[of_class], minlength=len(values))[::-1].cumsum()[::-1], 0)
        / max(of_class.sum(), 1)
        for of_class in (labels, ~labels)
    ]
    true_rate, false_rate = above
    if target == BALANCED_ACCURACY:
        gain = true_rate - false_rate
    elif (stated := _TARGET.fullmatch(target)) is not None:
        gain = np.where(false_rate <= float(stated[1]), true_rate, -1.0)
    else:
        raise CalibrationError(f"no target {target}: give {BALANCED_ACCURACY} or, say, fpr=0.05")
    # The rates are fractions of counts: equal ones may differ in the last bit.
    best = int(np.flatnonzero(gain >= gain.max() - 1e-12)[-1])
    if best == len(values):
        return float(np.nextafter(values[-1], np.inf))
    if best == 0:
        return float(values[0])
    middle = (values[best - 1] + values[best]) / 2
    return float(middle if middle > values[best - 1] else values[best])


def platt(scores: Scores, labels: Labels) -> Parameters:
    """Slope (at least 0) and intercept of maximum likelihood, targets smoothed as Platt does."""
    from scipy.special import expit, logit

    centre, width = scores.mean(), scores.std()
    standardised = (scores - centre) / width
    positive_count = int(labels.sum())
    targets = np.where(
        labels,
        (positive_count + 1) / (positive_count + 2),
        1 / (len(labels) - positive_count + 2),
    )

    def loss(point: Float[np.ndarray, " 2"]) -> tuple[float, Float[np.ndarray, " 2"]]:
        linear = point[0] * standardised + point[1]
        errors = expit(linear) - targets
        value = (np.logaddexp(0.0, linear) - targets * linear).mean()
        return float(value), np.array([(errors * standardised).mean(), errors.mean()])

    flat = np.array([0.0, logit(targets.mean())])
    # No stop on a small fall of the loss: near its minimum that is rounding long before the
    # gradient vanishes.
    bounds = ((0, None), (None, None))
    slope, intercept = minimize(loss, flat, bounds=bounds, gtol=1e-12, ftol=0.0)
    return {"slope": float(slope / width), "intercept": float(intercept - slope * centre / width)}


def isotonic(scores: Scores, labels: Labels) -> Parameters:
    """The best non-decreasing map in squared error."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True).fit(scores, labels)
    return {"x": fitted.X_thresholds_.tolist(), "y": fitted.y_thresholds_.tolist()}


def quantile(scores: Scores, _labels: Labels) -> Parameters:
    """Share of the calibration rows below each score, half of those at it."""
    values, first = np.unique(scores, return_index=True)
    places = (midranks(scores)[first] - 0.5) / len(scores)
    knots = np.linspace(0, len(values) - 1, min(len(values), _KNOT_COUNT))
    index = np.unique(knots.round().astype(np.int64))
    return {"x": values[index].tolist(), "y": places[index].tolist()}


def z_score(scores: Scores, _labels: Labels) -> Parameters:
    """The score about the mean in standard deviations."""
    width = scores.std(ddof=1)
    return {"slope": float(1 / width), "intercept": float(-scores.mean() / width)}
