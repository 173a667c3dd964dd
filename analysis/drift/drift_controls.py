"""What else a difference of slopes could come from, one control each.

Matching on the prompt's projection asks whether classes that start alike part, matching on length
and cutting to one length whether where completions end or who is left makes the difference.
These three and `other_text` give the slope difference anew, with an interval; `random_axes` and
`shuffled_tokens` give what it is when nothing is there. A control on fewer rows loses power, which
explains nothing: what it changes has an interval, too, on the same resamples of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.drift.drift_statistics import (
    centred_steps,
    class_slopes,
    slope_estimates,
    slope_terms,
)
from axes.analysis.drift.trajectories import Trajectories
from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import percentile_interval
from axes.analysis.stats.splits import match, standardised_difference

# How often each completion is drawn in each resample.
Draws = Int[np.ndarray, "resample row"]

NULL_COUNT = 200
# Prompts (or pairs of them) of a class that a control needs: fewer make no interval.
MIN_GROUPS = 10


@dataclass(frozen=True)
class Control:
    """The slope difference under a control; of a null, its mean and middle 95 %.

    `change` is the difference less that without the control; `imbalance` the classes' standardised
    difference in what was matched, before and after.
    """

    name: str
    estimate: Estimate
    positive_count: int
    negative_count: int
    change: Estimate | None = None
    imbalance: tuple[float, float] | None = None


def matched_prompt(trajectories: Trajectories, counts: Draws) -> Control | None:
    """Slopes of pairs matched on the prompt's projection; `counts` are resamples of completions.

    Where a prompt was not projected, on that of the first token, which then no slope is taken
    over: a first token picked for being high or low would fall back to the mean at the second.
    None with fewer than `MIN_GROUPS` prompts of a class, or where all of one are single tokens.
    """
    values, start = trajectories.values, trajectories.start
    if np.isnan(start).any():
        values, start = values.copy(), values[:, 0]
        values[:, 0] = np.nan
    return _matched("matched_prompt", trajectories, values, start, counts)


def matched_length(trajectories: Trajectories, counts: Draws) -> Control | None:
    """Slopes of pairs matched on log length, both cut to the shorter; None as above."""
    length = np.log(trajectories.lengths)
    return _matched(
        "matched_length", trajectories, trajectories.values, length, counts, is_cut=True
    )


def lasting(trajectories: Trajectories, min_steps: int, counts: Draws) -> Control | None:
    """Slopes over the first `min_steps` of the completions that last so long; None as above."""
    kept = np.flatnonzero(trajectories.lengths >= min_steps)
    return _control("lasting", trajectories, trajectories.values[kept, :min_steps], kept, counts)


def shuffled_tokens(trajectories: Trajectories, *, seed: int = 0) -> Control:
    """Slope differences with each completion's steps in random order, and how few reach ours."""
    random = np.random.default_rng(seed)
    values, is_positive = trajectories.values, trajectories.is_positive
    weights = _slope_weights(values, is_positive)
    filled = np.nan_to_num(values)
    # Random keys order the steps that are there; past the end a key is infinite and stays last.
    past_end = np.where(np.isnan(values), np.inf, 0.0)
    null = np.empty(NULL_COUNT)
    for index in range(NULL_COUNT):
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
    seed: int = 0,
) -> Control:
    """Slope differences on random directions of the norm of `vector`.

    A slope is linear in the direction: `rises` are those of the vectors themselves, and
    `rises @ direction` those of their projections. The p-value compares differences over their
    bootstrap standard errors: on an axis along which tokens vary much a difference is far from 0 by
    noise alone.
    """
    random = np.random.default_rng(seed)
    directions = random.standard_normal((NULL_COUNT + 1, len(vector)))
    directions *= np.linalg.norm(vector) / np.linalg.norm(directions, axis=1, keepdims=True)
    directions[0] = vector
    projected = rises @ directions.T

    def differences(drawn: Int[np.ndarray, "resample row"]) -> Float[np.ndarray, "resample axis"]:
        slopes = []
        for of_class in (is_positive, ~is_positive):
            drawn_of_class = drawn[:, of_class].astype(np.float64)
            weight = (drawn_of_class @ spread[of_class])[:, None]
            missing = np.full((len(drawn), NULL_COUNT + 1), np.nan)
            summed = drawn_of_class @ projected[of_class]
            slopes.append(np.divide(summed, weight, where=weight > 0, out=missing))
        return slopes[0] - slopes[1]

    observed = differences(np.ones((1, len(is_positive)), dtype=np.int64))[0]
    sizes, errors = np.abs(observed), np.nanstd(differences(counts), axis=0)
    # Without an error, but for rounding, nothing stands out from anything.
    studentised = np.divide(
        sizes, errors, where=errors > 1e-9 * sizes, out=np.full_like(errors, np.inf)
    )
    # Opposite directions are as far from 0 up to rounding.
    as_far = int((studentised[1:] >= studentised[0] * (1 - 1e-9)).sum())
    return _null("random_axes", observed[1:], as_far, is_positive)


def other_text(trajectories: Trajectories, counts: Draws) -> Control | None:
    """Slopes by the class of the prompt, where the text was written for the other class.

    A difference of the sign of that of the own texts says that the prompt drives the drift, one of
    the other sign that the text does. None as above.
    """
    every = np.arange(len(trajectories.is_positive))
    return _control("other_text", trajectories, trajectories.values, every, counts)


def _slope_weights(
    values: Float[np.ndarray, "row step"], is_positive: Bool[np.ndarray, " row"]
) -> Float[np.ndarray, "row step"]:
    """The weight of every token in the slope difference, which is their sum of products."""
    centred = centred_steps(values)
    spread = np.square(centred).sum(axis=1)
    signs = np.where(is_positive, 1 / spread[is_positive].sum(), -1 / spread[~is_positive].sum())
    return centred * signs[:, None]


def _matched(
    name: str,
    trajectories: Trajectories,
    values: Float[np.ndarray, "row step"],
    on: Float[np.ndarray, " row"],
    counts: Draws,
    *,
    is_cut: bool = False,
) -> Control | None:
    is_positive = trajectories.is_positive
    pairs = match(on, is_positive)
    kept = pairs.ravel()
    taken = values[kept]
    if is_cut:
        shorter = np.isnan(taken.reshape(len(pairs), 2, -1)).any(axis=1)
        taken = np.where(np.repeat(shorter, 2, axis=0), np.nan, taken)
    control = _control(name, trajectories, taken, kept, counts)
    if control is None:
        return None
    before, after = (
        standardised_difference(on, is_positive),
        standardised_difference(on[kept], is_positive[kept]),
    )
    return replace(control, imbalance=(before, after))


def _control(
    name: str,
    trajectories: Trajectories,
    values: Float[np.ndarray, "kept step"],
    kept: Int[np.ndarray, " kept"],
    counts: Draws,
) -> Control | None:
    """The slope difference of `values`, the rows `kept`, and what it changes.

    Resamples are of prompts, whole: the matched completions of a prompt are no more independent
    than all of them.
    """
    is_positive, groups = trajectories.is_positive[kept], trajectories.groups[kept]
    classes = is_positive, ~is_positive
    terms = slope_terms(values)
    if min(len(np.unique(groups[of_class])) for of_class in classes) < MIN_GROUPS or not all(
        terms.spread[of_class].any() for of_class in classes
    ):
        return None
    estimate = slope_estimates(terms, is_positive, counts[:, kept])[2]
    complete = slope_terms(trajectories.values)

    def change(drawn: Draws) -> Float[np.ndarray, " resample"]:
        controlled = class_slopes(terms, is_positive, drawn[:, kept])[:, 2]
        return controlled - class_slopes(complete, trajectories.is_positive, drawn)[:, 2]

    observed = float(change(np.ones_like(counts[:1]))[0])
    sizes = int(is_positive.sum()), int((~is_positive).sum())
    return Control(name, estimate, *sizes, change=percentile_interval(observed, change(counts)))


def _null(
    name: str, null: Float[np.ndarray, " draw"], as_far: int, is_positive: Bool[np.ndarray, " row"]
) -> Control:
    """The null's mean and middle 95 %; p: its share as far from 0 as the figure, itself counted."""
    lower, upper = (float(value) for value in np.quantile(null, [0.025, 0.975]))
    estimate = Estimate(float(null.mean()), lower, upper, (as_far + 1) / (len(null) + 1))
    positive_count = int(is_positive.sum())
    return Control(name, estimate, positive_count, len(is_positive) - positive_count)
