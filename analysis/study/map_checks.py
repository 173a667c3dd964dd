"""Checks of the map and of the activations: does the alignment hold where it is used?

An alignment is fitted on benign prompts, and nothing in its R2 says how it does on the labelled
ones. The reference has seen the same prompts, so its own projections are what the aligned ones
ought to follow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import spearmanr

from axes.analysis.blocks import blocks, mean, project
from axes.analysis.methods.affine_map import Alignment
from axes.analysis.methods.alignment import r_squared
from axes.analysis.methods.directions import difference_in_means
from axes.analysis.methods.nulls import cross_validated_scores
from axes.analysis.methods.ridge import LAMBDA_GRID, RidgeFitter
from axes.analysis.stats.auroc import auroc
from axes.analysis.stats.splits import held_out_mask
from axes.analysis.study.diagnosis_case import Case, Finding, View, cosine
from axes.warehouse.scratch import Rows

# An AUROC or an accuracy that moves by less changes no conclusion.
NOTABLE = 0.1
# How much worse aligned projections may follow the reference's on labelled text than on benign.
_TRACKING_LOSS = 0.3
_HELD_OUT_FRACTION = 0.2
# Winsorising: numbers further than so many standard deviations from the benign mean.
_CLIPPED_AT = 4.0
_TOP_DIMENSIONS = 3
# The lambdas within six decades, three to each side of the one in use.
_DECADES = 3.0


def alignment(case: Case, view: View) -> Finding:
    """Do aligned projections follow the reference's own, on each class as on benign prompts?"""
    if case.is_reference:
        return Finding("alignment", False, "the reference is mapped by the identity")
    held_out = held_out_mask(len(case.benign_x), fraction=_HELD_OUT_FRACTION, seed=0)
    seen = case.alignment
    if seen.ridge_lambda is not None:
        seen = _fitter(case, ~held_out).solve(seen.ridge_lambda)
    rows: dict[str, tuple[Alignment, Rows, Rows, Bool[np.ndarray, " row"]]] = {
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
    verdict = (
        "the alignment, fitted on benign text, does not hold on labelled text: rank correlation "
        f"with the reference's own projections {shown}"
        if is_fault
        else f"the alignment holds on labelled text: rank correlation with the reference's {shown}"
    )
    return Finding("alignment", is_fault, verdict, figures)


def massive_dimensions(case: Case, view: View) -> Finding:
    """Do a few dimensions of huge values rule the direction or the scores?

    Scaling every dimension to unit spread and winsorising are both fitted on benign rows.
    """
    centre, spread = _moments(case.benign_x)
    square = centre**2 + spread**2
    scale = np.where(spread > 0, spread, 1.0)
    low, high = centre - _CLIPPED_AT * spread, centre + _CLIPPED_AT * spread
    clipped = _apply(case.fitted_x, lambda block: block.clip(low, high))
    carried = case.alignment.carry(difference_in_means(clipped, case.fitted_labels).vector)
    figures = {
        "norm_share": _top_share(square),
        "variance_share": _top_share(spread**2),
        "gap_share": _top_share(np.abs(_gap(case) * (case.alignment.jacobian @ case.axis))),
        "native_auroc": _native_auroc(case, 1.0),
        "native_auroc_scaled": _native_auroc(case, scale),
        "cosine_winsorised": cosine(carried, case.axis),
        "auroc_winsorised": auroc(
            case.alignment.project(_apply(case.x, lambda block: block.clip(low, high)), case.axis),
            case.labels,
        ),
    }
    gain = figures["native_auroc_scaled"] - figures["native_auroc"]
    change = abs(figures["auroc_winsorised"] - view.area.estimate)
    is_fault = max(gain, change) > NOTABLE
    share = f"{_TOP_DIMENSIONS} dimensions hold {figures['norm_share']:.0%} of the squared norm"
    verdict = (
        f"{share} and rule what is found: scaled to one spread the model's own direction reaches "
        f"AUROC {figures['native_auroc_scaled']:.2f} instead of {figures['native_auroc']:.2f}, "
        f"winsorised the axis {figures['auroc_winsorised']:.2f} instead of {view.area.estimate:.2f}"
        if is_fault
        else f"{share}; scaling and winsorising change little"
    )
    return Finding("massive_dimensions", is_fault, verdict, figures)


def intercept(case: Case, view: View) -> Finding:
    """Do the projections lie where the reference's lie? AUROC cannot tell, a threshold must."""
    theirs = project(case.reference_x, case.axis)
    threshold, own = _midpoint(theirs, case.labels), _midpoint(view.scores, case.labels)
    figures = {
        "shift": (own - threshold) / view.spread,
        "accuracy": _balanced_accuracy(view.scores, case.labels, own),
        "accuracy_at_reference": _balanced_accuracy(view.scores, case.labels, threshold),
    }
    is_fault = figures["accuracy"] - figures["accuracy_at_reference"] > NOTABLE
    shown = (
        f"{figures['shift']:+.2f} spreads: balanced accuracy "
        f"{figures['accuracy_at_reference']:.2f} at the reference's threshold, "
        f"{figures['accuracy']:.2f} at its own"
    )
    verdict = (
        f"the projections are shifted by {shown}; this spoils thresholds, not AUROC"
        if is_fault
        else f"the reference's threshold fits (shift {shown})"
    )
    return Finding("intercept", is_fault, verdict, figures)


def ridge_lambda(case: Case, view: View) -> Finding:
    """Do cosine and AUROC hold over six decades of lambda, the axis held fixed?"""
    chosen = case.alignment.ridge_lambda
    if chosen is None:
        return Finding("ridge_lambda", False, "the map has no lambda")
    fitter = _fitter(case, np.ones(len(case.benign_x), dtype=bool))
    areas, cosines = [], []
    for value in LAMBDA_GRID:
        if abs(np.log10(value / chosen)) <= _DECADES + 1e-9:
            solved = fitter.solve(value)
            areas.append(auroc(solved.project(case.x, case.axis), case.labels))
            cosines.append(cosine(solved.carry(case.direction), case.axis))
    areas, cosines = areas or [view.area.estimate], cosines or [view.cosine]
    figures = {
        "auroc_lowest": min(areas),
        "auroc_highest": max(areas),
        "cosine_lowest": min(cosines),
        "cosine_highest": max(cosines),
        "ridge_lambda": chosen,
    }
    is_fault = max(areas) - min(areas) > NOTABLE
    verdict = (
        f"over six decades of lambda AUROC runs from {min(areas):.2f} to {max(areas):.2f} and the "
        f"cosine from {min(cosines):.2f} to {max(cosines):.2f}: "
        + ("the figure is one of lambda" if is_fault else "lambda decides nothing")
    )
    return Finding("ridge_lambda", is_fault, verdict, figures)


def _fitter(case: Case, where: Bool[np.ndarray, " row"]) -> RidgeFitter:
    fitter = RidgeFitter(case.benign_x.shape[1], case.benign_reference_x.shape[1])
    return fitter.update_all(case.benign_x, case.benign_reference_x, where)


def _tracking(
    axis: Float[np.ndarray, " d_reference"],
    fitted: Alignment,
    x: Rows,
    y: Rows,
    where: Bool[np.ndarray, " row"],
) -> float:
    """Rank correlation of aligned projections with the reference's own."""
    aligned, theirs = fitted.project(x, axis), project(y, axis)
    return float(spearmanr(aligned[where], theirs[where]).statistic)


def _moments(x: Rows) -> tuple[Float[np.ndarray, " d_model"], Float[np.ndarray, " d_model"]]:
    """Mean and standard deviation of every dimension."""
    centre, total = mean(x), np.zeros(x.shape[1])
    for (block,) in blocks(x):
        total += np.square(block - centre).sum(axis=0)
    return centre, np.sqrt(total / len(x))


def _apply(x: Rows, change: Callable[[np.ndarray], np.ndarray]) -> Float[np.ndarray, "row d_model"]:
    """The rows of a labelled set, changed block by block; such sets fit in memory."""
    return np.concatenate([change(block) for (block,) in blocks(x)])


def _gap(case: Case) -> Float[np.ndarray, " d_model"]:
    return mean(case.x, case.labels) - mean(case.x, ~case.labels)


def _top_share(parts: Float[np.ndarray, " d_model"]) -> float:
    return float(np.sort(parts)[-_TOP_DIMENSIONS:].sum() / max(parts.sum(), 1e-300))


def _native_auroc(case: Case, scale: Float[np.ndarray, " d_model"] | float) -> float:
    """Of the model's own difference in means on scaled rows, out of fold where it must be."""
    x = _apply(case.x, lambda block: block / scale)
    if case.is_in_sample:
        return auroc(cross_validated_scores(x, case.labels, case.groups), case.labels)
    fitted = _apply(case.fitted_x, lambda block: block / scale)
    return auroc(x @ difference_in_means(fitted, case.fitted_labels).vector, case.labels)


def _midpoint(scores: Float[np.ndarray, " row"], labels: Bool[np.ndarray, " row"]) -> float:
    return float((scores[labels].mean() + scores[~labels].mean()) / 2)


def _balanced_accuracy(
    scores: Float[np.ndarray, " row"], labels: Bool[np.ndarray, " row"], threshold: float
) -> float:
    return float(((scores[labels] > threshold).mean() + (scores[~labels] <= threshold).mean()) / 2)
