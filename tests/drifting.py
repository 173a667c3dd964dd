"""Trajectories with truth known: what each class does over the steps is planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from axes.analysis.drift.drift_statistics import slope_estimates, slope_terms
from axes.analysis.drift.trajectories import Trajectories
from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import draw_counts
from tests.rows import put

STEPS = 24


def plant(
    *,
    pairs: int = 40,
    slope: float = 0.0,
    offset: float = 0.0,
    noise: float = 1.0,
    of_prompt: float = 0.5,
    common: Callable[[np.ndarray], np.ndarray] = np.zeros_like,
    lengths: tuple[tuple[int, int], tuple[int, int]] = ((STEPS, STEPS), (STEPS, STEPS)),
    slope_deviation: float = 0.02,
    samples: int = 1,
    seed: int = 0,
) -> Trajectories:
    """`samples` completions of each prompt; a positive and a negative prompt make a pair.

    Positive ones start `offset` higher and rise by `slope` more a step. Both follow `common(step)`,
    a level of the pair's and one of the prompt's, and a slope of the prompt's. `lengths` are the
    least and the most steps of positive and of negative completions.
    """
    random = np.random.default_rng(seed)
    prompts = 2 * pairs
    count = prompts * samples
    is_positive = np.arange(prompts) % 2 == 0
    steps = np.arange(max(high for _, high in lengths))
    level = np.repeat(random.standard_normal(pairs), 2)
    level += of_prompt * random.standard_normal(prompts) + offset * is_positive
    own_slopes = slope * is_positive + slope_deviation * random.standard_normal(prompts)
    level, own_slopes, is_positive, prompt = (
        np.repeat(of_each, samples) for of_each in (level, own_slopes, is_positive, range(prompts))
    )
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
        prompt_ids=tuple(f"p{row:03d}" for row in prompt),
        texts=tuple(("t",) * int(steps) for steps in last),
        is_positive=is_positive,
        groups=prompt // 2,
        start=level + 0.1 * random.standard_normal(count),
        values=values,
    )


def draw(found: Trajectories, count: int = 200, seed: int = 0) -> np.ndarray:
    """Resamples of the completions, pairs together."""
    strata, groups = found.is_positive, found.groups
    return draw_counts(len(strata), strata=strata, groups=groups, count=count, seed=seed)


def difference(found: Trajectories, count: int = 400, seed: int = 0) -> Estimate:
    """The slope of the positive class minus that of the negative class."""
    counts = draw(found, count, seed)
    return slope_estimates(slope_terms(found.values), found.is_positive, counts)[2]


def write_traces(
    root: Path,
    model: str,
    matrix: np.ndarray,
    prompt_ids: Sequence[str],
    *,
    name: str = "g",
    layer: int = 2,
    sources: Sequence[str | None] | None = None,
    **columns: object,
) -> list[str]:
    """Store a completion of each prompt, token vectors `[row, step, d_model]`; return their ids."""
    ids = [f"{name}-{row:02d}" for row in range(len(matrix))]
    steps = matrix.shape[1]
    of_model = {"model": model, "run_id": "world"}
    place = {**of_model, "layer": layer, "site": "resid_post"}
    tokens = (
        {**place, "generation_id": generation_id, "step": step, "token": f" t{step}"}
        | {"vector": matrix[row, step].tolist()}
        for row, generation_id in enumerate(ids)
        for step in range(steps)
    )
    put(root, "generation_tokens", *tokens)
    common = {**of_model, "model_id": f"id-{model}", "token_count": steps, "text": "said"}
    common |= {"template": "raw", "finish_reason": "length", "max_new_tokens": steps}
    common |= {"temperature": 0.0, "top_p": 1.0, "seed": 0, **columns}
    generations = (
        {**common, "generation_id": generation_id, "prompt_id": prompt_id, "source": source}
        for generation_id, prompt_id, source in zip(
            ids, prompt_ids, sources or [None] * len(ids), strict=True
        )
    )
    put(root, "generations", *generations)
    return ids
