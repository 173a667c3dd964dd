"""How early a completion's class shows: AUROC of the running projection after each step.

The running projection is the mean over the steps so far. A completion that has ended keeps the one
it ended with, so that every step is judged on the same completions and a curve does not move
because the short ones leave it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bands import Curve, banded
from axes.analysis.stats.bootstrap import resampled_aurocs

# An AUROC from which a class counts as told: three pairs of four are in the right order.
BOUND = 0.75


def running_means(values: Float[np.ndarray, "row step"]) -> Float[np.ndarray, "row step"]:
    """Mean over the steps so far, carried on past a completion's end.

    >>> running_means(np.array([[0.0, 2.0, 4.0], [1.0, 3.0, np.nan]]))
    array([[0., 1., 2.],
           [1., 2., 2.]])
    """
    there = ~np.isnan(values)
    return np.nan_to_num(values).cumsum(axis=1) / there.cumsum(axis=1)


def running_aurocs(
    values: Float[np.ndarray, "row step"],
    is_positive: Bool[np.ndarray, " row"],
    counts: Int[np.ndarray, "resample row"],
) -> tuple[Curve, Float[np.ndarray, "resample step"]]:
    """The curve of AUROC over steps, and its resamples."""
    running = running_means(values)
    whole = resampled_aurocs(running, is_positive, np.ones((1, len(running)), dtype=np.int64))[0]
    resampled = resampled_aurocs(running, is_positive, counts)
    steps = np.arange(values.shape[1])
    positive_counts = np.full(len(steps), is_positive.sum())
    negative_counts = np.full(len(steps), (~is_positive).sum())
    curve = banded(steps, whole, resampled, positive_counts, negative_counts)
    return curve, resampled


def decided_step(
    curve: Curve, resampled: Float[np.ndarray, "resample step"], *, bound: float = BOUND
) -> Estimate | None:
    """The first step from which AUROC stays at or above `bound`; None where it does not.

    An end of the interval is None where that share of the resamples is never decided.
    """
    first = _first_to_stay(curve.estimate[None] >= bound)[0]
    if not np.isfinite(first):
        return None
    tails = np.quantile(_first_to_stay(resampled >= bound), [0.025, 0.975], method="higher")
    lower, upper = (float(step) if np.isfinite(step) else None for step in tails)
    return Estimate(float(first), lower, upper)


def lead(
    events: Float[np.ndarray, " row"],
    curve: Curve,
    resampled: Float[np.ndarray, "resample step"],
    counts: Int[np.ndarray, "resample row"],
    *,
    bound: float = BOUND,
) -> Estimate | None:
    """Median tokens from the decided step to a completion's event; negative: it comes too late.

    `events` is the step of each completion's event, NaN for one without. The interval resamples the
    completions, those of the curve included. None where nothing is decided.
    """
    decided = decided_step(curve, resampled, bound=bound)
    has_event = ~np.isnan(events)
    if decided is None or not has_event.any():
        return None
    steps = events[has_event]
    firsts = _first_to_stay(resampled >= bound)
    medians = [
        float(np.median(np.repeat(steps, drawn))) - first
        for drawn, first in zip(counts[:, has_event], firsts, strict=True)
        if drawn.sum()
    ]
    # Undecided resamples are the worst case: infinitely late.
    lower, upper = np.quantile(medians, [0.025, 0.975], method="lower")
    estimate = float(np.median(steps)) - decided.estimate
    return Estimate(
        estimate,
        float(lower) if np.isfinite(lower) else None,
        float(upper) if np.isfinite(upper) else None,
    )


def event_steps(
    texts: Sequence[Sequence[str]], pattern: str | None, is_positive: Bool[np.ndarray, " row"]
) -> Float[np.ndarray, " row"]:
    """The step of each completion's event, NaN for one without.

    With a `pattern` (a regular expression, whatever the case) it is the token where its first match
    begins; without, the last token of a completion of the positive class.
    """
    if pattern is None:
        return np.array(
            [
                len(tokens) - 1 if positive else np.nan
                for tokens, positive in zip(texts, is_positive, strict=True)
            ]
        )
    expression = re.compile(pattern, re.IGNORECASE)
    return np.array([_matched_step(tokens, expression) for tokens in texts])


def _matched_step(tokens: Sequence[str], expression: re.Pattern[str]) -> float:
    found = expression.search("".join(tokens))
    if found is None:
        return np.nan
    ends = np.cumsum([len(token) for token in tokens])
    return float(np.searchsorted(ends, found.start(), side="right"))


def _first_to_stay(holds: Bool[np.ndarray, "curve step"]) -> Float[np.ndarray, " curve"]:
    """First step of the run of True that lasts to the end; infinity where the last is False."""
    stays = np.logical_and.accumulate(holds[:, ::-1], axis=1)[:, ::-1]
    return np.where(stays.any(axis=1), stays.argmax(axis=1), np.inf)
