"""Trajectories with truth known: what each class does over the steps is planted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from axes.analysis.drift.trajectories import Trajectories

STEPS = 24


def plant(
    *,
    pairs: int = 40,
    slope: float = 0.0,
    offset: float = 0.0,
    noise: float = 1.0,
    of_completion: float = 0.5,
    common: Callable[[np.ndarray], np.ndarray] = np.zeros_like,
    lengths: tuple[tuple[int, int], tuple[int, int]] = ((STEPS, STEPS), (STEPS, STEPS)),
    slope_deviation: float = 0.02,
    seed: int = 0,
) -> Trajectories:
    """A positive and a negative completion of each of `pairs` prompts.

    Positive ones start `offset` higher and rise by `slope` more a step. Both follow `common(step)`,
    a level of the pair's and one of their own, and a slope of their own. `lengths` are the least
    and the most steps of positive and of negative completions.
    """
    random = np.random.default_rng(seed)
    count = 2 * pairs
    is_positive = np.arange(count) % 2 == 0
    steps = np.arange(max(high for _, high in lengths))
    level = np.repeat(random.standard_normal(pairs), 2) + of_completion * random.standard_normal(
        count
    )
    level += offset * is_positive
    own_slopes = slope * is_positive + slope_deviation * random.standard_normal(count)
    values = level[:, None] + np.outer(own_slopes, steps) + common(steps.astype(np.float64))
    values += noise * random.standard_normal(values.shape)
    low, high = np.where(is_positive, *np.array(lengths)[:, :, None])
    last = random.integers(low, high + 1)
    values[steps >= last[:, None]] = np.nan
    names = tuple(f"g{row:03d}" for row in range(count))
    return Trajectories(
        prompt_set="planted",
        sampling={"template": "raw"},
        generation_ids=names,
        prompt_ids=tuple(f"p{row:03d}" for row in range(count)),
        texts=tuple(("t",) * int(steps) for steps in last),
        is_positive=is_positive,
        groups=np.repeat(np.arange(pairs), 2),
        start=level + 0.1 * random.standard_normal(count),
        values=values,
    )
