"""Which model answers which prompt: rules of choice, and what each of them would have brought.

A policy is a matrix of shares `[prompt, model]`: how much of a prompt goes to a model, all of it
for a rule that chooses, equal parts for one that draws at random. What a policy brings on average
is then exact, and policies are compared on the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.analysis.stats.auroc import Estimate
from axes.analysis.stats.bootstrap import RESAMPLE_COUNT, draw_counts, percentile_interval

BEST_SINGLE = "best_single"
ORACLE = "oracle"
RANDOM = "random"


@dataclass(frozen=True)
class Limits:
    """What a choice is subject to: the dearest and the poorest model that may answer.

    Of the models within `tolerance` of the lowest score the cheapest is taken.
    """

    max_cost: float | None = None
    min_quality: float | None = None
    tolerance: float = 0.0

    def allowed(
        self, cost: Float[np.ndarray, "prompt model"], quality: Float[np.ndarray, "prompt model"]
    ) -> Bool[np.ndarray, "prompt model"]:
        """Whether each model may answer each prompt."""
        is_allowed = np.ones(cost.shape, dtype=bool)
        if self.max_cost is not None:
            is_allowed &= cost <= self.max_cost
        if self.min_quality is not None:
            is_allowed &= quality >= self.min_quality
        return is_allowed


def choose(
    scores: Float[np.ndarray, "prompt model"],
    cost: Float[np.ndarray, "prompt model"],
    is_allowed: Bool[np.ndarray, "prompt model"],
    tolerance: float = 0.0,
) -> Int[np.ndarray, " prompt"]:
    """Per prompt the allowed model of the lowest score, or the cheapest within `tolerance` of it.

    Equal costs are decided by the score, equal scores by the order of the models.

    >>> scores, cost = np.array([[0.10, 0.12, 0.9]]), np.array([[5.0, 1.0, 0.0]])
    >>> everything = np.ones((1, 3), dtype=bool)
    >>> choose(scores, cost, everything), choose(scores, cost, everything, tolerance=0.05)
    (array([0]), array([1]))
    """
    open_to = np.where(is_allowed, scores, np.inf)
    is_near = is_allowed & (open_to <= open_to.min(axis=1, keepdims=True) + tolerance)
    cheap = np.where(is_near, cost, np.inf)
    is_cheapest = is_near & (cheap == cheap.min(axis=1, keepdims=True))
    return np.where(is_cheapest, scores, np.inf).argmin(axis=1)


def best_single(
    outcome: Float[np.ndarray, "prompt model"],
    cost: Float[np.ndarray, "prompt model"],
    is_open: Bool[np.ndarray, " model"],
) -> int:
    """The model that is best for all prompts together: the lowest mean outcome, then the cheapest.

    `outcome` and `cost` are of calibration prompts; `is_open` says which models may answer every
    prompt that is routed.
    """
    means, costs = outcome.mean(axis=0), cost.mean(axis=0)
    return int(choose(means[None], costs[None], is_open[None])[0])


def wholly(
    chosen: Int[np.ndarray, " prompt"] | int, shape: tuple[int, int]
) -> Float[np.ndarray, "prompt model"]:
    """The shares of a rule that sends every prompt to one model."""
    shares = np.zeros(shape)
    shares[np.arange(shape[0]), chosen] = 1.0
    return shares


def evenly(is_allowed: Bool[np.ndarray, "prompt model"]) -> Float[np.ndarray, "prompt model"]:
    """The shares of a draw among the allowed models."""
    return is_allowed / is_allowed.sum(axis=1, keepdims=True)


def judge_policies(
    policies: Mapping[str, Float[np.ndarray, "prompt model"]],
    values: Mapping[str, Float[np.ndarray, "prompt model"]],
    *,
    groups: Int[np.ndarray, " prompt"],
    count: int = RESAMPLE_COUNT,
    seed: int = 0,
) -> dict[tuple[str, str], Estimate]:
    """(policy, metric) -> the mean over prompts of what it brings, all on the same resamples.

    `values` must hold `outcome`. Beside the means: `regret` is the outcome less that of the oracle,
    `gain` the outcome of the best single model less the policy's own, `over_raw` that of the same
    policy on raw projections (named POLICY_raw) less its own; each on the same prompts, and tested
    against 0. Resamples draw whole `groups`; what was fitted is held fixed.
    """
    per_prompt = {
        (policy, metric): (shares * matrix).sum(axis=1)
        for policy, shares in policies.items()
        for metric, matrix in values.items()
    }
    compared = {}
    for policy in policies:
        own = per_prompt[policy, "outcome"]
        compared[policy, "regret"] = own - per_prompt[ORACLE, "outcome"]
        compared[policy, "gain"] = per_prompt[BEST_SINGLE, "outcome"] - own
        if f"{policy}_raw" in policies:
            compared[policy, "over_raw"] = per_prompt[f"{policy}_raw", "outcome"] - own
    counts = draw_counts(len(groups), groups=groups, count=count, seed=seed)
    sizes = counts.sum(axis=1)
    return {
        key: percentile_interval(
            float(column.mean()), counts @ column / sizes, is_tested=key in compared
        )
        for key, column in (per_prompt | compared).items()
    }
