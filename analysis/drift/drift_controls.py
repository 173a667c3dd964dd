"""What else a difference of slopes could come from, one control each.

`matched_prompt`  pairs alike in the projection of the prompt: do classes that start alike part?
`matched_length`  pairs alike in length, the longer one cut to the shorter: not where they end
`lasting`         completions of at least so many steps, cut there: not who is left
`random_axes`     the same vectors on random directions of the axis's norm
`shuffled_tokens` the same values with the steps of each completion in random order
`other_text`      the same model reading the text that it wrote for a prompt of the other class

The first three and the last give the slope difference anew, with an interval; the other two give
what it is when nothing is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.drift.drift_statistics import centred_steps, slope_estimates, slope_terms
from axes.analysis.drift.trajectories import Trajectories
from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import draw_counts
from axes.analysis.stats.splits import match, standardised_difference

NULL_COUNT = 200


@dataclass(frozen=True)
class Control:
    """The slope difference under a control; of a null, its mean and middle 95 %.

    `imbalance` is the classes' standardised difference in what was matched, before and after.
    """

    name: str
    estimate: Estimate
    positive_count: int
    negative_count: int
    imbalance: tuple[float, float] | None = None


def matched_prompt(trajectories: Trajectories, *, seed: int = 0) -> Control | None:
    """Slopes of pairs matched on the prompt's projection.

    Where a prompt was not projected, on that of the first token, which then no slope is taken
    over: a first token picked for being high or low would fall back to the mean at the second.
    None with fewer than two pairs, or where those of a class are all of a single token.
    """
    values, start = trajectories.values, trajectories.start
    if np.isnan(start).any():
        values, start = values.copy(), values[:, 0]
        values[:, 0] = np.nan
    return _matched("matched_prompt", values, start, trajectories.is_positive, seed=seed)


def matched_length(trajectories: Trajectories, *, seed: int = 0) -> Control | None:
    """Slopes of pairs matched on log length, both cut to the shorter; None as above."""
    length = np.log(trajectories.lengths)
    return _matched(
        "matched_length",
        trajectories.values,
        length,
        trajectories.is_positive,
        seed=seed,
        is_cut=True,
    )


def lasting(trajectories: Trajectories, min_steps: int, *, seed: int = 0) -> Control | None:
    """Slopes over the first `min_steps` of the completions that last so long.

    None with fewer than two of a class.
    """
    kept = trajectories.take(np.flatnonzero(trajectories.lengths >= min_steps))
    return _slope_control("lasting", kept.values[:, :min_steps], kept, seed=seed)


def shuffled_tokens(
    trajectories: Trajectories, *, count: int = NULL_COUNT, seed: int = 0
) -> Control:
    """Slope differences with each completion's steps in random order, and how few reach ours."""
    random = np.random.default_rng(seed)
    values, is_positive = trajectories.values, trajectories.is_positive
    weights = _slope_weights(values, is_positive)
    filled = np.nan_to_num(values)
    # Random keys order the steps that are there; past the end a key is infinite and stays last.
    past_end = np.where(np.isnan(values), np.inf, 0.0)
    null = np.empty(count)
    for index in range(count):
        order = np.argsort(random.random(values.shape) + past_end, axis=1)
        null[index] = (weights * np.take_along_axis(filled, order, axis=1)).sum()
    as_far = int((np.abs(null) >= abs((weights * filled).sum())).sum())
    return _null("shuffled_tokens", null, as_far, is_positive)


def random_axes(
    rises: Float[np.ndarray, "row d_model"],
    spread: Float[np.ndarray, " row"],
    vector: Float[np.ndarray, " d_model"],
    is_positive: Bool[np.ndarray, " row"],
    counts: Int[np.ndarray, "resample row"],
    *,
    count: int = NULL_COUNT,
    seed: int = 0,
) -> Control:
    """Slope differences on random directions of the norm of `vector`.

    A slope is linear in the direction: `rises` are those of the vectors themselves, and
    `rises @ direction` those of their projections. The p-value compares differences over their
    bootstrap standard errors: on an axis along which tokens vary much a difference is far from 0 by
    noise alone.
    """
    random = np.random.default_rng(seed)
    directions = random.standard_normal((count + 1, len(vector)))
    directions *= np.linalg.norm(vector) / np.linalg.norm(directions, axis=1, keepdims=True)
    directions[0] = vector
    projected = rises @ directions.T

    def differences(drawn: Int[np.ndarray, "resample row"]) -> Float[np.ndarray, "resample axis"]:
        slopes = []
        for of_class in (is_positive, ~is_positive):
            drawn_of_class = drawn[:, of_class].astype(np.float64)
            weight = (drawn_of_class @ spread[of_class])[:, None]
            missing = np.full((len(drawn), count + 1), np.nan)
            summed = drawn_of_class @ projected[of_class]
            slopes.append(np.divide(summed, weight, where=weight > 0, out=missing))
        return slopes[0] - slopes[1]

    observed = differences(np.ones((1, len(is_positive)), dtype=np.int64))[0]
    studentised = np.abs(observed) / np.nanstd(differences(counts), axis=0)
    # Opposite directions are as far from 0 up to rounding.
    as_far = int((studentised[1:] >= studentised[0] * (1 - 1e-9)).sum())
    return _null("random_axes", observed[1:], as_far, is_positive)


def other_text(trajectories: Trajectories, *, seed: int = 0) -> Control | None:
    """Slopes by the class of the prompt, where the text was written for the other class.

    A difference of the sign of that of the own texts says that the prompt drives the drift, one of
    the other sign that the text does. None with fewer than two of a class.
    """
    return _slope_control("other_text", trajectories.values, trajectories, seed=seed)


def _slope_weights(
    values: Float[np.ndarray, "row step"], is_positive: Bool[np.ndarray, " row"]
) -> Float[np.ndarray, "row step"]:
    """The weight of every token in the slope difference, which is their sum of products."""
    centred = centred_steps(values)
    spread = np.square(centred).sum(axis=1)
    signs = np.where(is_positive, 1 / spread[is_positive].sum(), -1 / spread[~is_positive].sum())
    return centred * signs[:, None]


def _slope_control(
    name: str, values: Float[np.ndarray, "row step"], trajectories: Trajectories, *, seed: int
) -> Control | None:
    of_class = trajectories.is_positive
    positive_count = int(of_class.sum())
    negative_count = len(of_class) - positive_count
    if min(positive_count, negative_count) < 2:
        return None
    counts = draw_counts(len(of_class), strata=of_class, groups=trajectories.groups, seed=seed)
    difference = slope_estimates(slope_terms(values), of_class, counts)[2]
    return Control(name, difference, positive_count, negative_count)


def _matched(
    name: str,
    values: Float[np.ndarray, "row step"],
    on: Float[np.ndarray, " row"],
    is_positive: Bool[np.ndarray, " row"],
    *,
    seed: int,
    is_cut: bool = False,
) -> Control | None:
    pairs = match(on, is_positive)
    if len(pairs) < 2:
        return None
    kept = pairs.ravel()
    taken, of_class = values[kept], is_positive[kept]
    if is_cut:
        shorter = np.isnan(taken.reshape(len(pairs), 2, -1)).any(axis=1)
        taken = np.where(np.repeat(shorter, 2, axis=0), np.nan, taken)
    pair_of_row: Int[np.ndarray, " row"] = np.repeat(np.arange(len(pairs)), 2)
    counts = draw_counts(len(kept), strata=of_class, groups=pair_of_row, seed=seed)
    terms = slope_terms(taken)
    if not min(terms.spread[of_class].sum(), terms.spread[~of_class].sum()):
        return None
    difference = slope_estimates(terms, of_class, counts)[2]
    imbalance = (
        standardised_difference(on, is_positive),
        standardised_difference(on[kept], of_class),
    )
    return Control(name, difference, len(pairs), len(pairs), imbalance=imbalance)


def _null(
    name: str, null: Float[np.ndarray, " draw"], as_far: int, is_positive: Bool[np.ndarray, " row"]
) -> Control:
    """The null's mean and middle 95 %; p: its share as far from 0 as the figure, itself counted."""
    lower, upper = (float(value) for value in np.quantile(null, [0.025, 0.975]))
    estimate = Estimate(float(null.mean()), lower, upper, (as_far + 1) / (len(null) + 1))
    positive_count = int(is_positive.sum())
    return Control(name, estimate, positive_count, len(is_positive) - positive_count)
