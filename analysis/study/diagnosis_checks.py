"""Checks of a case along its axis: do cosine, class means and ranks say the same, and if not, why?

By Cantelli's inequality an AUROC of `A` leaves the class means at most `sqrt(A / (1 - A))` standard
deviations of a pair's difference apart; classes that are normal have an AUROC of `Phi(separation)`,
so their means and their ranks never disagree in sign.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, skew, spearmanr, trim_mean

from axes.analysis.blocks import blocks
from axes.analysis.methods.nulls import cross_validated_scores, shuffled_labels
from axes.analysis.stats.auroc import Estimate, auroc
from axes.analysis.stats.baselines import explains
from axes.analysis.study.diagnosis_case import Case, Finding, View
from axes.warehouse.scratch import Rows

# A cosine above it is read as "the same direction", one below minus it as the opposite.
ALIKE = 0.3
# Cut off at each end of a class before its mean is taken again.
TRIMMED_SHARE = 0.2
# Stored projections are float64 of the stored float32 map: in spreads, more is another map.
_SAME_PROJECTION = 1e-3


def disagreement(case: Case, view: View) -> Finding:
    """Cosine beside AUROC, and the AUROC that these class means would give to normal classes."""
    area, separation = view.area.estimate, float(view.gap / (np.sqrt(2) * view.spread))
    is_fault = is_reversed(view.area) and view.cosine > ALIKE
    verdict = (
        f"cosine {view.cosine:.2f} says the same direction, AUROC {area:.2f} says the reverse"
        if is_fault
        else f"cosine {view.cosine:.2f} and AUROC {area:.2f} do not contradict each other"
    )
    figures = {
        "cosine": view.cosine,
        "auroc": area,
        "native_auroc": view.native.estimate,
        "separation": separation,
        "normal_auroc": float(norm.cdf(separation)),
        "largest_separation": float(np.sqrt(area / max(1 - area, 1e-12))),
    }
    return Finding("disagreement", is_fault, verdict, figures | _ends(view.area))


def projection(case: Case, view: View) -> Finding:
    """Are the projections that were judged those of this map and axis on these activations?"""
    if case.stored is None:
        return Finding("projection", False, "no stored projections to compare with")
    worst = float(np.abs(case.stored - view.scores).max() / view.spread)
    ranks = float(spearmanr(case.stored, view.scores).statistic)
    is_fault = worst > _SAME_PROJECTION
    verdict = (
        f"the stored projections are not those of this map and axis: off by up to {worst:.2g} "
        f"spreads, rank correlation {ranks:.2f}; their AUROC says nothing about the axis"
        if is_fault
        else "the stored projections are those of this map and axis"
    )
    return Finding(
        "projection", is_fault, verdict, {"largest_error": worst, "rank_correlation": ranks}
    )


def signal(case: Case, view: View) -> Finding:
    """Does a direction tell the classes apart on rows that it was not fitted on, or is it chance?

    In sample: out of fold against shuffled labels, in the model's own space and, since a map may
    bring out what is faint there, in the aligned one. On other prompts: the interval of the AUROC,
    of the model's own direction and of the axis.
    """
    if case.is_in_sample:
        area, chance = _out_of_fold(case.x, case)
        aligned, aligned_chance = area, chance
        if not case.is_reference:
            carried = np.concatenate([case.alignment.apply(block) for (block,) in blocks(case.x)])
            aligned, aligned_chance = _out_of_fold(carried, case)
    else:
        # On other prompts far below one half is a signal, too: that of swapped labels.
        area, chance = _folded(view.native.estimate), 0.5 + _reach(view.native)
        aligned, aligned_chance = _folded(view.area.estimate), 0.5 + _reach(view.area)
    is_fault = area <= chance and aligned <= aligned_chance
    shown = f"AUROC {area:.2f}, by chance up to {chance:.2f}; aligned {aligned:.2f}"
    verdict = (
        f"the classes are not told apart beyond chance ({shown}): there is nothing to carry over"
        if is_fault
        else f"the classes are told apart beyond chance ({shown})"
    )
    figures = {
        "auroc": area,
        "chance": chance,
        "aligned_auroc": aligned,
        "aligned_chance": aligned_chance,
    }
    return Finding("signal", is_fault, verdict, figures)


def labels(case: Case, view: View) -> Finding:
    """On other prompts: does the model's own direction rank them the wrong way round as well?"""
    is_fault = not case.is_in_sample and is_reversed(view.native)
    verdict = (
        "before any alignment the model's own direction ranks these prompts the wrong way round "
        f"(AUROC {view.native.estimate:.2f}): swapped labels, or another concept"
        if is_fault
        else "labels mean here what they mean where the direction was fitted"
    )
    return Finding("labels", is_fault, verdict, {"native_auroc": view.native.estimate})


def direction(case: Case, view: View) -> Finding:
    """Does the model's aligned direction oppose the axis, or stand for something but the means?"""
    opposes, is_no_mean = view.cosine < -ALIKE, view.cosine > ALIKE and view.mean_cosine < 0
    if opposes:
        verdict = (
            f"the aligned direction opposes the axis (cosine {view.cosine:.2f}): the model shows "
            "the concept the other way round than the group"
        )
    elif is_no_mean:
        verdict = (
            f"the direction is no difference in means: its cosine is {view.cosine:.2f}, that of "
            f"the means {view.mean_cosine:.2f}, and scores follow the means"
        )
    else:
        verdict = f"the aligned direction does not oppose the axis (cosine {view.cosine:.2f})"
    figures = {"cosine": view.cosine, "mean_cosine": view.mean_cosine}
    return Finding("direction", opposes or is_no_mean, verdict, figures)


def few_rows(case: Case, view: View) -> Finding:
    """Do a few rows carry the class means while the bulk is ranked the other way?"""
    positive, negative = view.scores[case.labels], view.scores[~case.labels]
    trimmed = float(trim_mean(positive, TRIMMED_SHARE) - trim_mean(negative, TRIMMED_SHARE))
    sign = 1.0 if view.gap >= 0 else -1.0
    is_beyond_chance = abs(view.gap) > 2 * view.spread * np.sqrt(
        1 / len(positive) + 1 / len(negative)
    )
    ranks_disagree = is_reversed(view.area) if sign > 0 else _interval(view.area)[0] > 0.5
    is_fault = bool(is_beyond_chance and ranks_disagree and sign * trimmed < 0)
    carried_by = min(
        _share_that_carries(sign * positive, float(sign * negative.mean())),
        _share_that_carries(-sign * negative, float(-sign * positive.mean())),
    )
    verdict = (
        f"{carried_by:.0%} of a class carries its mean: the means are {view.gap:+.3g} apart along "
        f"the axis, without the outer fifths {trimmed:+.3g}; a cosine of means cannot see that the "
        "bulk is ranked the other way"
        if is_fault
        else f"the means ({view.gap:+.3g}) and the bulk ({trimmed:+.3g}) are not at odds"
    )
    figures = {
        "mean_gap": view.gap,
        "trimmed_gap": trimmed,
        "median_gap": float(np.median(positive) - np.median(negative)),
        "share_that_carries": carried_by,
        "positive_mean": float(positive.mean()),
        "negative_mean": float(negative.mean()),
        "positive_spread": float(positive.std(ddof=1)),
        "negative_spread": float(negative.std(ddof=1)),
        "positive_skewness": float(skew(positive)),
        "negative_skewness": float(skew(negative)),
    }
    return Finding("few_rows", is_fault, verdict, figures)


def class_difference(case: Case, view: View) -> Finding:
    """On other prompts: do the classes part in the direction in which they parted before?"""
    is_fault = (
        not case.is_in_sample
        and view.mean_cosine > ALIKE
        and view.cosine_here < 0
        and is_reversed(view.area)
    )
    verdict = (
        f"the classes part elsewhere on these prompts: along the axis their difference has cosine "
        f"{view.cosine_here:.2f}, where the direction was fitted {view.mean_cosine:.2f}"
        if is_fault
        else "the classes part along the axis here as where the direction was fitted"
    )
    figures = {"cosine_fitted": view.mean_cosine, "cosine_here": view.cosine_here}
    return Finding("class_difference", is_fault, verdict, figures)


def source(case: Case, view: View) -> Finding:
    """Would the words of the prompts do as well without any model?"""
    words = case.bag_of_words
    if words is None:
        return Finding("source", False, "no bag of words to compare with")
    is_fault = explains(words, view.area)
    verdict = (
        f"a bag of words tells the classes apart as well (AUROC {words.estimate:.2f} beside "
        f"{view.area.estimate:.2f}): words or sources may be all that the axis sees"
        if is_fault
        else f"a bag of words does not do as well (AUROC {words.estimate:.2f})"
    )
    return Finding("source", is_fault, verdict, {"bag_of_words": words.estimate})


def is_reversed(area: Estimate) -> bool:
    """Whether an AUROC is below one half beyond its interval."""
    return _interval(area)[1] < 0.5


def _interval(area: Estimate) -> tuple[float, float]:
    """The ends, or everything where there are too few rows for an interval."""
    if area.lower is None or area.upper is None:
        return 0.0, 1.0
    return area.lower, area.upper


def _ends(area: Estimate) -> dict[str, float]:
    lower, upper = _interval(area)
    return {"auroc_lower": lower, "auroc_upper": upper}


def _folded(area: float) -> float:
    return max(area, 1 - area)


def _reach(area: Estimate) -> float:
    lower, upper = _interval(area)
    return (upper - lower) / 2


def _out_of_fold(x: Rows, case: Case) -> tuple[float, float]:
    """AUROC of out-of-fold directions, and its 95th percentile under shuffled labels."""
    scores = cross_validated_scores(x, case.labels, case.groups)
    null = shuffled_labels(x, case.labels, case.groups).held_out
    return auroc(scores, case.labels), float(np.quantile(null, 0.95))


def _share_that_carries(values: Float[np.ndarray, " row"], other_mean: float) -> float:
    """The least share of a class, its largest values, without which its mean is not the higher."""
    ascending = np.sort(values)
    means = np.cumsum(ascending) / np.arange(1, len(ascending) + 1)
    kept = np.flatnonzero(means <= other_mean)
    return float(1 - (kept[-1] + 1) / len(values)) if len(kept) else 1.0
