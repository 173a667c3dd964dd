"""The checks of a diagnosis: each looks for one cause, and says with its numbers whether it holds.

Checks of scores: do cosine, class means and ranks agree? docs/methods.md (Cosine and AUROC) derives
what they can and cannot be together. Checks of the map and the activations: does the alignment,
fitted on benign prompts, hold on the labelled ones? The reference has seen the same prompts, so
aligned projections should follow its projections.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, skew, spearmanr, trim_mean

from axes.analysis.activations import blocks, mean, project
from axes.analysis.methods.covariance import mean_and_variance
from axes.analysis.methods.directions import cosine, difference_in_means
from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.methods.maps.alignment import r_squared
from axes.analysis.methods.maps.ridge import LAMBDA_GRID, RidgeFitter
from axes.analysis.methods.nulls import cross_validated_scores, shuffled_labels
from axes.analysis.stats.auroc import Estimate, Labels, Scores, auroc
from axes.analysis.stats.splits import held_out_mask
from axes.analysis.study.diagnosis.case import Case, Finding, View
from axes.warehouse.layers import Rows

# A cosine above it is read as "the same direction", one below minus it as the opposite.
ALIKE = 0.3
# Cut off at each end of a class before its mean is taken again.
TRIMMED_SHARE = 0.2
# An AUROC or an accuracy that moves by less changes no conclusion.
NOTABLE = 0.1
# Stored projections are float64 of the stored float32 map: in standard deviations within a class, a
# larger difference is another map.
_SAME_PROJECTION = 1e-3
# How much worse aligned projections may follow the reference's on labelled text than on benign.
_TRACKING_LOSS = 0.3
_HELD_OUT_FRACTION = 0.2
# Winsorising: numbers further than so many standard deviations from the benign mean.
_CLIPPED_AT = 4.0
_TOP_DIMENSIONS = 3
# The lambdas within six decades, three to each side of the one in use.
_DECADES = 3.0


def disagreement(case: Case, view: View) -> Finding:
    """Cosine next to AUROC, and the AUROC that normal classes with these means would have."""
    area, separation = view.area.estimate, float(view.gap / (np.sqrt(2) * view.deviation))
    is_fault = is_reversed(view.area) and view.cosine > ALIKE
    fault = f"cosine {view.cosine:.2f} means the same direction, AUROC {area:.2f} the reverse"
    healthy = f"cosine {view.cosine:.2f} and AUROC {area:.2f} do not contradict each other"
    lower, upper = _interval(view.area)
    figures = {
        "cosine": view.cosine,
        "auroc": area,
        "native_auroc": view.native.estimate,
        "separation": separation,
        "normal_auroc": float(norm.cdf(separation)),
        "largest_separation": float(np.sqrt(area / max(1 - area, 1e-12))),
        "auroc_lower": lower,
        "auroc_upper": upper,
    }
    return Finding.of("disagreement", is_fault, fault, healthy, figures)


def projection(case: Case, view: View) -> Finding:
    """Are the evaluated projections those of this map and axis on these activations?"""
    if case.stored is None:
        return Finding("projection", False, "no stored projections to compare with")
    worst = float(np.abs(case.stored - view.scores).max() / view.deviation)
    ranks = float(spearmanr(case.stored, view.scores).statistic)
    is_fault = worst > _SAME_PROJECTION
    fault = (
        f"the stored projections are not those of this map and axis: off by up to {worst:.2g} "
        f"standard deviations, rank correlation {ranks:.2f}; their AUROC is not one of the axis"
    )
    healthy = "the stored projections are those of this map and axis"
    return Finding.of(
        "projection", is_fault, fault, healthy, {"largest_error": worst, "rank_correlation": ranks}
    )


def few_rows(case: Case, view: View) -> Finding:
    """Do a few rows dominate the class means while most rows are ranked in reverse?"""
    positive, negative = view.scores[case.labels], view.scores[~case.labels]
    trimmed = float(trim_mean(positive, TRIMMED_SHARE) - trim_mean(negative, TRIMMED_SHARE))
    sign = 1.0 if view.gap >= 0 else -1.0
    is_beyond_chance = abs(view.gap) > 2 * view.deviation * np.sqrt(
        1 / len(positive) + 1 / len(negative)
    )
    ranks_disagree = is_reversed(view.area) if sign > 0 else _interval(view.area)[0] > 0.5
    is_fault = bool(is_beyond_chance and ranks_disagree and sign * trimmed < 0)
    share = min(
        _dominant_share(sign * positive, float(sign * negative.mean())),
        _dominant_share(-sign * negative, float(-sign * positive.mean())),
    )
    fault = (
        f"{share:.0%} of a class dominates its mean: the means are {view.gap:+.3g} apart along "
        f"the axis, without the outer fifths {trimmed:+.3g}; a cosine of means cannot see that "
        "most rows are ranked in reverse"
    )
    healthy = f"the means ({view.gap:+.3g}) and the trimmed means ({trimmed:+.3g}) agree"
    figures = {
        "mean_gap": view.gap,
        "trimmed_gap": trimmed,
        "median_gap": float(np.median(positive) - np.median(negative)),
        "share_that_carries": share,
        "positive_mean": float(positive.mean()),
        "negative_mean": float(negative.mean()),
        "positive_spread": float(positive.std(ddof=1)),
        "negative_spread": float(negative.std(ddof=1)),
        "positive_skewness": float(skew(positive)),
        "negative_skewness": float(skew(negative)),
    }
    return Finding.of("few_rows", is_fault, fault, healthy, figures)


def massive_dimensions(case: Case, view: View) -> Finding:
    """Do a few dimensions of huge values determine the direction or the scores?

    Scaling dimensions to unit standard deviation and winsorising are both fitted on benign rows.
    """
    centre, variance = mean_and_variance(case.benign_x)
    deviation = np.sqrt(variance)
    square = centre**2 + deviation**2
    scale = np.where(deviation > 0, deviation, 1.0)
    low, high = centre - _CLIPPED_AT * deviation, centre + _CLIPPED_AT * deviation
    gap = mean(case.x, case.labels) - mean(case.x, ~case.labels)
    clipped = _apply(case.fitted_x, lambda block: block.clip(low, high))
    mapped = case.alignment.map(difference_in_means(clipped, case.fitted_labels).vector)
    figures = {
        "norm_share": _top_share(square),
        "variance_share": _top_share(deviation**2),
        "gap_share": _top_share(np.abs(gap * (case.alignment.jacobian @ case.axis))),
        "native_auroc": _native_auroc(case, 1.0),
        "native_auroc_scaled": _native_auroc(case, scale),
        "cosine_winsorised": cosine(mapped, case.axis),
        "auroc_winsorised": auroc(
            case.alignment.project(_apply(case.x, lambda block: block.clip(low, high)), case.axis),
            case.labels,
        ),
    }
    gain = figures["native_auroc_scaled"] - figures["native_auroc"]
    change = abs(figures["auroc_winsorised"] - view.area.estimate)
    is_fault = max(gain, change) > NOTABLE
    share = f"{_TOP_DIMENSIONS} dimensions hold {figures['norm_share']:.0%} of the squared norm"
    fault = (
        f"{share} and determine the result: with scaled dimensions the model's direction reaches "
        f"AUROC {figures['native_auroc_scaled']:.2f} instead of {figures['native_auroc']:.2f}, "
        f"winsorised the axis {figures['auroc_winsorised']:.2f} instead of {view.area.estimate:.2f}"
    )
    healthy = f"{share}; scaling and winsorising change little"
    return Finding.of("massive_dimensions", is_fault, fault, healthy, figures)


def signal(case: Case, view: View) -> Finding:
    """Does a direction separate the classes on rows that it was not fitted on, or is it chance?

    In sample: out of fold against shuffled labels, in the model's space and, since a map may
    amplify what is faint there, in the aligned one. On other prompts: the interval of the AUROC,
    of the model's direction and of the axis.
    """
    if case.is_in_sample:
        area, chance = _out_of_fold(case.x, case)
        aligned, aligned_chance = area, chance
        if not case.is_reference:
            mapped = _apply(case.x, case.alignment.apply)
            aligned, aligned_chance = _out_of_fold(mapped, case)
    else:
        # On other prompts far below one half is a signal, too: that of swapped labels.
        area, aligned = (max(a.estimate, 1 - a.estimate) for a in (view.native, view.area))
        chance, aligned_chance = (
            0.5 + (upper - lower) / 2
            for lower, upper in (_interval(view.native), _interval(view.area))
        )
    is_fault = area <= chance and aligned <= aligned_chance
    shown = f"AUROC {area:.2f}, by chance up to {chance:.2f}; aligned {aligned:.2f}"
    fault = f"the classes are not separated beyond chance ({shown}): there is nothing to map"
    healthy = f"the classes are separated beyond chance ({shown})"
    figures = {
        "auroc": area,
        "chance": chance,
        "aligned_auroc": aligned,
        "aligned_chance": aligned_chance,
    }
    return Finding.of("signal", is_fault, fault, healthy, figures)


def labels(case: Case, view: View) -> Finding:
    """On other prompts: does the model's direction rank them in reverse as well?"""
    is_fault = not case.is_in_sample and is_reversed(view.native)
    fault = (
        "before any alignment the model's direction ranks these prompts in reverse "
        f"(AUROC {view.native.estimate:.2f}): swapped labels, or another concept"
    )
    healthy = "the labels mean the same here as where the direction was fitted"
    return Finding.of("labels", is_fault, fault, healthy, {"native_auroc": view.native.estimate})


def direction(case: Case, view: View) -> Finding:
    """Is the model's aligned direction opposite to the axis, or not a difference in means?"""
    opposes, is_no_mean = view.cosine < -ALIKE, view.cosine > ALIKE and view.mean_cosine < 0
    if opposes:
        verdict = (
            f"the aligned direction opposes the axis (cosine {view.cosine:.2f}): the model shows "
            "the concept in reverse of the group"
        )
    elif is_no_mean:
        verdict = (
            f"the direction is not a difference in means: its cosine is {view.cosine:.2f}, that of "
            f"the means {view.mean_cosine:.2f}, and scores follow the means"
        )
    else:
        verdict = f"the aligned direction does not oppose the axis (cosine {view.cosine:.2f})"
    figures = {"cosine": view.cosine, "mean_cosine": view.mean_cosine}
    return Finding("direction", opposes or is_no_mean, verdict, figures)


def class_difference(case: Case, view: View) -> Finding:
    """On other prompts: do the classes differ in the same direction as before?"""
    is_fault = (
        not case.is_in_sample
        and view.mean_cosine > ALIKE
        and view.cosine_here < 0
        and is_reversed(view.area)
    )
    fault = (
        f"the classes differ in another direction on these prompts: its cosine with the axis is "
        f"{view.cosine_here:.2f}, where the direction was fitted {view.mean_cosine:.2f}"
    )
    healthy = "the classes differ along the axis here as where the direction was fitted"
    figures = {"cosine_fitted": view.mean_cosine, "cosine_here": view.cosine_here}
    return Finding.of("class_difference", is_fault, fault, healthy, figures)


def alignment(case: Case, view: View) -> Finding:
    """Do aligned projections follow the reference's, on each class as on benign prompts?"""
    if case.is_reference:
        return Finding("alignment", False, "the reference is mapped by the identity")
    held_out = held_out_mask(len(case.benign_x), fraction=_HELD_OUT_FRACTION, seed=0)
    seen = case.alignment
    if seen.ridge_lambda is not None:
        seen = _fitter(case, ~held_out).solve(seen.ridge_lambda)
    rows: dict[str, tuple[Alignment, Rows, Rows, Labels]] = {
        "benign": (seen, case.benign_x, case.benign_reference_x, held_out),
        "positive": (case.alignment, case.x, case.reference_x, case.labels),
        "negative": (case.alignment, case.x, case.reference_x, ~case.labels),
    }
    # About the mean of these very rows, so that a shift counts as an error.
    figures = {
        f"r2_{name}": r_squared(fitted, x, y, mean(y, where), where=where)[0]
        for name, (fitted, x, y, where) in rows.items()
    }
    figures |= {f"tracking_{name}": _tracking(case.axis, *parts) for name, parts in rows.items()}
    worst = min(figures["tracking_positive"], figures["tracking_negative"])
    is_fault = worst < figures["tracking_benign"] - _TRACKING_LOSS
    shown = ", ".join(f"{name} {figures[f'tracking_{name}']:.2f}" for name in rows)
    fault = (
        "the alignment, fitted on benign text, does not hold on labelled text: rank correlation "
        f"with the reference's projections {shown}"
    )
    healthy = f"the alignment holds on labelled text: rank correlation with the reference's {shown}"
    return Finding.of("alignment", is_fault, fault, healthy, figures)


def source(case: Case, view: View) -> Finding:
    """Is the axis shown to exceed what the surface of the prompts tells, without any model?"""
    cause = case.premises.get("surface")
    healthy = "no surface baseline comes near the axis"
    return Finding("source", cause is not None, cause or healthy)


def premise(case: Case, view: View) -> Finding:
    """Do the premises of the claims hold? If not, no verdict rests on these numbers."""
    causes = [cause for name, cause in case.premises.items() if name != "surface"]
    return Finding("premise", bool(causes), "; ".join(causes) or "the premises of the claims hold")


def ridge_lambda(case: Case, view: View) -> Finding:
    """Do cosine and AUROC hold over six decades of lambda, the axis held fixed?"""
    chosen = case.alignment.ridge_lambda
    if chosen is None:
        return Finding("ridge_lambda", False, "the map has no lambda")
    path = _fitter(case, np.ones(len(case.benign_x), dtype=bool)).path()
    areas, cosines = [], []
    for value in LAMBDA_GRID:
        if abs(np.log10(value / chosen)) <= _DECADES + 1e-9:
            solved = path.solve(value)
            areas.append(auroc(solved.project(case.x, case.axis), case.labels))
            cosines.append(cosine(solved.map(case.direction), case.axis))
    areas, cosines = areas or [view.area.estimate], cosines or [view.cosine]
    figures = {
        "auroc_lowest": min(areas),
        "auroc_highest": max(areas),
        "cosine_lowest": min(cosines),
        "cosine_highest": max(cosines),
        "ridge_lambda": chosen,
    }
    is_fault = max(areas) - min(areas) > NOTABLE
    shown = (
        f"over six decades of lambda AUROC is {min(areas):.2f} to {max(areas):.2f} and the cosine "
        f"{min(cosines):.2f} to {max(cosines):.2f}"
    )
    fault, healthy = f"the metric depends on lambda: {shown}", f"lambda matters little: {shown}"
    return Finding.of("ridge_lambda", is_fault, fault, healthy, figures)


def intercept(case: Case, view: View) -> Finding:
    """Are the projections where the reference's are? AUROC cannot see a shift, a threshold does."""
    threshold = _midpoint(project(case.reference_x, case.axis), case.labels)
    mapped_threshold = _midpoint(view.scores, case.labels)
    figures = {
        "shift": (mapped_threshold - threshold) / view.deviation,
        "accuracy": _balanced_accuracy(view.scores, case.labels, mapped_threshold),
        "accuracy_at_reference": _balanced_accuracy(view.scores, case.labels, threshold),
    }
    is_fault = figures["accuracy"] - figures["accuracy_at_reference"] > NOTABLE
    shown = (
        f"{figures['shift']:+.2f} standard deviations: balanced accuracy "
        f"{figures['accuracy_at_reference']:.2f} at the reference's threshold, "
        f"{figures['accuracy']:.2f} at the model's"
    )
    fault = f"the projections are shifted by {shown}; this changes thresholds, not AUROC"
    healthy = f"the reference's threshold fits (shift {shown})"
    return Finding.of("intercept", is_fault, fault, healthy, figures)


def is_reversed(area: Estimate) -> bool:
    """Whether an AUROC is below one half beyond its interval."""
    return _interval(area)[1] < 0.5


def _interval(area: Estimate) -> tuple[float, float]:
    """The ends, or everything where there are too few rows for an interval."""
    if area.lower is None or area.upper is None:
        return 0.0, 1.0
    return area.lower, area.upper


def _dominant_share(values: Scores, other_mean: float) -> float:
    """The smallest share of a class, its largest values, without which its mean is not higher."""
    ascending = np.sort(values)
    means = np.cumsum(ascending) / np.arange(1, len(ascending) + 1)
    kept = np.flatnonzero(means <= other_mean)
    return float(1 - (kept[-1] + 1) / len(values)) if len(kept) else 1.0


def _apply(x: Rows, change: Callable[[np.ndarray], np.ndarray]) -> Float[np.ndarray, "row d_model"]:
    """The rows of a labelled set, changed block by block; such sets fit in memory."""
    return np.concatenate([change(block) for (block,) in blocks(x)])


def _top_share(parts: Float[np.ndarray, " d_model"]) -> float:
    return float(np.sort(parts)[-_TOP_DIMENSIONS:].sum() / max(parts.sum(), 1e-300))


def _native_auroc(case: Case, scale: Float[np.ndarray, " d_model"] | float) -> float:
    """Of the model's difference in means on scaled rows, out of fold where it is in sample."""
    x = _apply(case.x, lambda block: block / scale)
    if case.is_in_sample:
        return auroc(cross_validated_scores(x, case.labels, case.groups), case.labels)
    fitted = _apply(case.fitted_x, lambda block: block / scale)
    return auroc(x @ difference_in_means(fitted, case.fitted_labels).vector, case.labels)


def _out_of_fold(x: Rows, case: Case) -> tuple[float, float]:
    """AUROC of out-of-fold directions, and its 95th percentile under shuffled labels."""
    scores = cross_validated_scores(x, case.labels, case.groups)
    null = shuffled_labels(x, case.labels, case.groups).held_out
    return auroc(scores, case.labels), float(np.quantile(null, 0.95))


def _fitter(case: Case, where: Labels) -> RidgeFitter:
    fitter = RidgeFitter(case.benign_x.shape[1], case.benign_reference_x.shape[1])
    return fitter.update_all(case.benign_x, case.benign_reference_x, where)


def _tracking(
    axis: Float[np.ndarray, " d_reference"], fitted: Alignment, x: Rows, y: Rows, where: Labels
) -> float:
    """Rank correlation of aligned projections with the reference's."""
    aligned, reference = fitted.project(x, axis), project(y, axis)
    return float(spearmanr(aligned[where], reference[where]).statistic)


def _midpoint(scores: Scores, labels: Labels) -> float:
    return float((scores[labels].mean() + scores[~labels].mean()) / 2)


def _balanced_accuracy(scores: Scores, labels: Labels, threshold: float) -> float:
    return float(((scores[labels] > threshold).mean() + (scores[~labels] <= threshold).mean()) / 2)
